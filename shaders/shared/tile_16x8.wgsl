// A register tile of 16 rows x 8 channels: half the loads a multiply-add of tile_8x4.wgsl. Software adapters, which pay most for loads, run it
// 1.4-1.8 times as fast; a GPU would spill it, and it compiles slowly. The functions are those of tile_8x4.wgsl; the product is in a file of
// its own, product_16x8.wgsl or product_16x8_quads.wgsl, with the same bits.

const TILE_ROWS: u32 = 16u;
const TILE_COLS4: u32 = 2u;

alias Columns = array<vec4f, TILE_COLS4>;

// a: the first 4 channels, b: the next; upper and lower 8 rows.
struct Tile {
  a: Quad,
  b: Quad,
  lower_a: Quad,
  lower_b: Quad,
}

fn tile_linear(row: u32, last: u32, col: u32, inner4: u32, stride4: u32) -> Tile {
  let z = tile_product(row, last, col, inner4, stride4);
  let next = min(col + 1u, stride4 - 1u);
  let a = w_bias(inner4, stride4, col);
  let b = w_bias(inner4, stride4, next);
  let scale_a = w_scale(inner4, stride4, col);
  let scale_b = w_scale(inner4, stride4, next);
  return Tile(
    quad_finish(z.a, scale_a, a),
    quad_finish(z.b, scale_b, b),
    quad_finish(z.lower_a, scale_a, a),
    quad_finish(z.lower_b, scale_b, b),
  );
}

fn tile_of_rows(weights: array<vec4f, TILE_ROWS / 4u>) -> Tile {
  let upper = quad_of_rows(weights[0], weights[1]);
  let lower = quad_of_rows(weights[2], weights[3]);
  return Tile(upper, upper, lower, lower);
}

fn tile_ones() -> Tile {
  let ones = quad_of_rows(vec4f(1.0), vec4f(1.0));
  return Tile(ones, ones, ones, ones);
}

fn tile_multiply(a: Tile, b: Tile) -> Tile {
  return Tile(quad_multiply(a.a, b.a), quad_multiply(a.b, b.b), quad_multiply(a.lower_a, b.lower_a), quad_multiply(a.lower_b, b.lower_b));
}

// In a loop over memory: written out, 32 activations are most of what a kernel takes to compile, and run no faster.
fn tile_activate(z: Tile) -> Tile {
  var v = tile_rows(z);
  for (var i = 0u; i < TILE_ROWS * TILE_COLS4; i++) {
    v[i] = activate(v[i]);
  }
  return tile_of(&v);
}

fn tile_accumulate(z: Tile, sums: Columns) -> Columns {
  return Columns((sums[0] + quad_sum(z.a)) + quad_sum(z.lower_a), (sums[1] + quad_sum(z.b)) + quad_sum(z.lower_b));
}

fn tile_prefix(z: Tile, carry: Columns) -> Tile {
  let a = quad_prefix(z.a, carry[0]);
  let b = quad_prefix(z.b, carry[1]);
  return Tile(a, b, quad_prefix(z.lower_a, a.r7), quad_prefix(z.lower_b, b.r7));
}

fn tile_gate(z: Tile) -> Tile {
  var v = tile_rows(z);
  for (var i = 0u; i < TILE_ROWS * TILE_COLS4; i++) {
    v[i] = gate(v[i]);
  }
  return tile_of(&v);
}

// For epilogues, which take rows in turn: an array in memory, since a choice among 32 registers costs software adapters a branch each.
alias TileRows = array<vec4f, TILE_ROWS * TILE_COLS4>;

fn tile_rows(z: Tile) -> TileRows {
  return TileRows(
    z.a.r0, z.b.r0,
    z.a.r1, z.b.r1,
    z.a.r2, z.b.r2,
    z.a.r3, z.b.r3,
    z.a.r4, z.b.r4,
    z.a.r5, z.b.r5,
    z.a.r6, z.b.r6,
    z.a.r7, z.b.r7,
    z.lower_a.r0, z.lower_b.r0,
    z.lower_a.r1, z.lower_b.r1,
    z.lower_a.r2, z.lower_b.r2,
    z.lower_a.r3, z.lower_b.r3,
    z.lower_a.r4, z.lower_b.r4,
    z.lower_a.r5, z.lower_b.r5,
    z.lower_a.r6, z.lower_b.r6,
    z.lower_a.r7, z.lower_b.r7,
  );
}

fn tile_at(rows: ptr<function, TileRows>, r: u32, c: u32) -> vec4f {
  return (*rows)[TILE_COLS4 * r + c];
}

fn tile_of(v: ptr<function, TileRows>) -> Tile {
  return Tile(
    Quad((*v)[0], (*v)[2], (*v)[4], (*v)[6], (*v)[8], (*v)[10], (*v)[12], (*v)[14]),
    Quad((*v)[1], (*v)[3], (*v)[5], (*v)[7], (*v)[9], (*v)[11], (*v)[13], (*v)[15]),
    Quad((*v)[16], (*v)[18], (*v)[20], (*v)[22], (*v)[24], (*v)[26], (*v)[28], (*v)[30]),
    Quad((*v)[17], (*v)[19], (*v)[21], (*v)[23], (*v)[25], (*v)[27], (*v)[29], (*v)[31]),
  );
}
