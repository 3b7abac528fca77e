// The functions of polynomial_8x4.wgsl for tile_1x4.wgsl.

fn tile_coefficients(j: u32, col: u32) -> Tile {
  return Tile(coefficient(j, col));
}

fn tile_horner(p: Tile, a: Tile, j: u32, col: u32) -> Tile {
  return Tile((p.r0 + coefficient(j, col)) * a.r0);
}

fn tile_turn(a: Tile, b: Tile, sign: f32, row: u32, last: u32, plane: u32, channel: u32) -> Tile {
  return Tile(turn(a.r0, b.r0, sign, min(row, last), plane, channel));
}
