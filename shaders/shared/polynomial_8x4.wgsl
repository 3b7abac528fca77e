// What polynomial.wgsl needs of tile_8x4.wgsl; uses polynomial_quad.wgsl.

// The coefficients of power j + 1, in every row.
fn tile_coefficients(j: u32, col: u32) -> Tile {
  return Tile(quad_of(coefficient(j, col)));
}

// (p + coeff_j) a
fn tile_horner(p: Tile, a: Tile, j: u32, col: u32) -> Tile {
  return Tile(quad_horner(p.a, a.a, coefficient(j, col)));
}

// a cos + sign · b sin, by the position of each row.
fn tile_turn(a: Tile, b: Tile, sign: f32, row: u32, last: u32, plane: u32, channel: u32) -> Tile {
  return Tile(quad_turn(a.a, b.a, sign, row, last, plane, channel));
}
