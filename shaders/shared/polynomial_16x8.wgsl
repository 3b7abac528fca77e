// The functions of polynomial_8x4.wgsl for tile_16x8.wgsl.

fn tile_coefficients(j: u32, col: u32) -> Tile {
  let a = quad_of(coefficient(j, col));
  let b = quad_of(coefficient(j, col + 1u));
  return Tile(a, b, a, b);
}

fn tile_horner(p: Tile, a: Tile, j: u32, col: u32) -> Tile {
  let c = coefficient(j, col);
  let d = coefficient(j, col + 1u);
  return Tile(quad_horner(p.a, a.a, c), quad_horner(p.b, a.b, d), quad_horner(p.lower_a, a.lower_a, c), quad_horner(p.lower_b, a.lower_b, d));
}

fn tile_turn(a: Tile, b: Tile, sign: f32, row: u32, last: u32, plane: u32, channel: u32) -> Tile {
  return Tile(
    quad_turn(a.a, b.a, sign, row, last, plane, channel),
    quad_turn(a.b, b.b, sign, row, last, plane, channel + 1u),
    quad_turn(a.lower_a, b.lower_a, sign, row + 8u, last, plane, channel),
    quad_turn(a.lower_b, b.lower_b, sign, row + 8u, last, plane, channel + 1u),
  );
}
