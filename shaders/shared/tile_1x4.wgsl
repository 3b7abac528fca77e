// A register tile of one row: the functions of tile_8x4.wgsl that kernels for few rows use. Decoding a single sequence would
// waste seven rows of eight.

const TILE_ROWS: u32 = 1u;
const TILE_COLS4: u32 = 1u;

struct Tile {
  r0: vec4f,
}

// sum over inner of x[row, inner] * w[inner, col]
fn tile_product(row: u32, last: u32, col: u32, inner4: u32, stride4: u32) -> Tile {
  let p0 = x_base(min(row, last));
  let stride_4 = 4u * stride4;
  var r0 = vec4f();
  for (var k = lanes_start(); k < inner4; k = lanes_next(k)) {
    r0 += load_w_block(col + k * stride_4, k, col, inner4, stride4) * load_x(p0, k);
  }
  return Tile(lanes_sum(LaneRows(r0))[0]);
}

fn tile_linear(row: u32, last: u32, col: u32, inner4: u32, stride4: u32) -> Tile {
  let z = tile_product(row, last, col, inner4, stride4);
  let bias = w_bias(inner4, stride4, col);
  if (W_SCALED) {
    return Tile(fma(z.r0, w_scale(inner4, stride4, col), bias));
  }
  return Tile(z.r0 + bias);
}

fn tile_ones() -> Tile {
  return Tile(vec4f(1.0));
}

fn tile_subtract(a: Tile, b: Tile) -> Tile {
  return Tile(a.r0 - b.r0);
}

fn tile_activate(z: Tile) -> Tile {
  return Tile(activate(z.r0));
}

fn tile_multiply(a: Tile, b: Tile) -> Tile {
  return Tile(a.r0 * b.r0);
}

fn tile_row(z: Tile, r: u32, c: u32) -> vec4f {
  return z.r0;
}

fn tile_gate(z: Tile) -> Tile {
  return Tile(gate(z.r0));
}

alias TileRows = Tile;

fn tile_rows(z: Tile) -> TileRows {
  return z;
}

fn tile_at(z: ptr<function, TileRows>, r: u32, c: u32) -> vec4f {
  return (*z).r0;
}
