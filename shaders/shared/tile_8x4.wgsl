// A register tile of 8 rows x 4 channels: what GPUs start with. Needs quad.wgsl, activations.wgsl, a load_x and a load_w file, and
// from the kernel `x` and `w`: [inner, outer], 4 outer channels an element.

const TILE_ROWS: u32 = 8u;
const TILE_COLS4: u32 = 1u;

alias Columns = array<vec4f, TILE_COLS4>;

struct Tile {
  a: Quad,
}

// sum over inner of x[row + r, inner] * w[inner, col]; rows past `last` repeat it, so that every load is in bounds.
fn tile_product(row: u32, last: u32, col: u32, inner4: u32, stride4: u32) -> Tile {
  let p0 = x_base(min(row, last));
  let p1 = x_base(min(row + 1u, last));
  let p2 = x_base(min(row + 2u, last));
  let p3 = x_base(min(row + 3u, last));
  let p4 = x_base(min(row + 4u, last));
  let p5 = x_base(min(row + 5u, last));
  let p6 = x_base(min(row + 6u, last));
  let p7 = x_base(min(row + 7u, last));
  let stride_4 = 4u * stride4;
  var a0 = vec4f();
  var a1 = vec4f();
  var a2 = vec4f();
  var a3 = vec4f();
  var a4 = vec4f();
  var a5 = vec4f();
  var a6 = vec4f();
  var a7 = vec4f();
  for (var k = lanes_start(); k < inner4; k = lanes_next(k)) {
    let m = load_w_block(col + k * stride_4, k, col, inner4, stride4);
    a0 += m * load_x(p0, k);
    a1 += m * load_x(p1, k);
    a2 += m * load_x(p2, k);
    a3 += m * load_x(p3, k);
    a4 += m * load_x(p4, k);
    a5 += m * load_x(p5, k);
    a6 += m * load_x(p6, k);
    a7 += m * load_x(p7, k);
  }
  let sum = lanes_sum(LaneRows(a0, a1, a2, a3, a4, a5, a6, a7));
  return Tile(Quad(sum[0], sum[1], sum[2], sum[3], sum[4], sum[5], sum[6], sum[7]));
}

// The product and what finishes it: scale and bias, from the load_w file.
fn tile_linear(row: u32, last: u32, col: u32, inner4: u32, stride4: u32) -> Tile {
  let z = tile_product(row, last, col, inner4, stride4);
  return Tile(quad_finish(z.a, w_scale(inner4, stride4, col), w_bias(inner4, stride4, col)));
}

// One weight a row, for all its channels.
fn tile_of_rows(weights: array<vec4f, TILE_ROWS / 4u>) -> Tile {
  return Tile(quad_of_rows(weights[0], weights[1]));
}

fn tile_ones() -> Tile {
  return Tile(quad_of_rows(vec4f(1.0), vec4f(1.0)));
}

fn tile_subtract(a: Tile, b: Tile) -> Tile {
  return Tile(quad_subtract(a.a, b.a));
}

fn tile_multiply(a: Tile, b: Tile) -> Tile {
  return Tile(quad_multiply(a.a, b.a));
}

fn tile_activate(z: Tile) -> Tile {
  return Tile(quad_activate(z.a));
}

// sums + the sum of each column over the rows, 8 rows at a time: the same bits for every tile.
fn tile_accumulate(z: Tile, sums: Columns) -> Columns {
  return Columns(sums[0] + quad_sum(z.a));
}

// Running sums down the rows, from `carry` on.
fn tile_prefix(z: Tile, carry: Columns) -> Tile {
  return Tile(quad_prefix(z.a, carry[0]));
}

fn tile_row(z: Tile, r: u32, c: u32) -> vec4f {
  return quad_row(z.a, r);
}

fn tile_gate(z: Tile) -> Tile {
  return Tile(quad_gate(z.a));
}

// For epilogues, which take rows in turn.
alias TileRows = Tile;

fn tile_rows(z: Tile) -> TileRows {
  return z;
}

fn tile_at(z: ptr<function, TileRows>, r: u32, c: u32) -> vec4f {
  return quad_row((*z).a, r);
}
