// The functions of polynomial_8x4.wgsl for tile_16x8.wgsl. In loops over memory, as in tile_activate: written out they take too long to compile.

fn tile_coefficients(j: u32, col: u32) -> Tile {
  let a = quad_of(coefficient(j, col));
  let b = quad_of(coefficient(j, col + 1u));
  return Tile(a, b, a, b);
}

fn tile_horner(p: Tile, a: Tile, j: u32, col: u32) -> Tile {
  let c = coefficient(j, col);
  let d = coefficient(j, col + 1u);
  var u = tile_rows(p);
  var v = tile_rows(a);
  for (var i = 0u; i < TILE_ROWS * TILE_COLS4; i += TILE_COLS4) {
    u[i] = (u[i] + c) * v[i];
    u[i + 1u] = (u[i + 1u] + d) * v[i + 1u];
  }
  return tile_of(&u);
}

fn tile_turn(a: Tile, b: Tile, sign: f32, row: u32, last: u32, plane: u32, channel: u32) -> Tile {
  var u = tile_rows(a);
  var v = tile_rows(b);
  for (var i = 0u; i < TILE_ROWS * TILE_COLS4; i++) {
    u[i] = turn(u[i], v[i], sign, min(row + i / TILE_COLS4, last), plane, channel + i % TILE_COLS4);
  }
  return tile_of(&u);
}
