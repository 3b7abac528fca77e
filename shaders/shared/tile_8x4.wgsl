// A register tile of 8 rows x 4 channels, one named vec4f a row: indexed private arrays spill on software adapters
// (8x4 tile, same arithmetic: named vec4f rows 1.21 GFLOP/s, array<vec4f, 8> in a loop 0.91).
// Needs from the kernel: `w` ([inner, outer], 4 outer channels a vec4f), and a load_x file. Needs activations.wgsl.

const TILE_ROWS: u32 = 8u;

struct Tile {
  r0: vec4f,
  r1: vec4f,
  r2: vec4f,
  r3: vec4f,
  r4: vec4f,
  r5: vec4f,
  r6: vec4f,
  r7: vec4f,
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
  let stride_2 = 2u * stride4;
  let stride_3 = 3u * stride4;
  let stride_4 = 4u * stride4;
  var i = col;
  var r0 = vec4f();
  var r1 = vec4f();
  var r2 = vec4f();
  var r3 = vec4f();
  var r4 = vec4f();
  var r5 = vec4f();
  var r6 = vec4f();
  var r7 = vec4f();
  for (var k = 0u; k < inner4; k++) {
    let m = mat4x4f(w[i], w[i + stride4], w[i + stride_2], w[i + stride_3]);
    i += stride_4;
    r0 += m * load_x(p0, k);
    r1 += m * load_x(p1, k);
    r2 += m * load_x(p2, k);
    r3 += m * load_x(p3, k);
    r4 += m * load_x(p4, k);
    r5 += m * load_x(p5, k);
    r6 += m * load_x(p6, k);
    r7 += m * load_x(p7, k);
  }
  return Tile(r0, r1, r2, r3, r4, r5, r6, r7);
}

// The product plus the bias, which is the row of w after the 4 * inner4 rows of weights.
fn tile_linear(row: u32, last: u32, col: u32, inner4: u32, stride4: u32) -> Tile {
  return tile_add(tile_product(row, last, col, inner4, stride4), w[4u * inner4 * stride4 + col]);
}

fn tile_ones() -> Tile {
  return tile_of_rows(vec4f(1.0), vec4f(1.0));
}

fn tile_subtract(a: Tile, b: Tile) -> Tile {
  return Tile(a.r0 - b.r0, a.r1 - b.r1, a.r2 - b.r2, a.r3 - b.r3, a.r4 - b.r4, a.r5 - b.r5, a.r6 - b.r6, a.r7 - b.r7);
}

fn tile_add(z: Tile, v: vec4f) -> Tile {
  return Tile(z.r0 + v, z.r1 + v, z.r2 + v, z.r3 + v, z.r4 + v, z.r5 + v, z.r6 + v, z.r7 + v);
}

fn tile_activate(z: Tile) -> Tile {
  return Tile(activate(z.r0), activate(z.r1), activate(z.r2), activate(z.r3), activate(z.r4), activate(z.r5), activate(z.r6), activate(z.r7));
}

fn tile_multiply(a: Tile, b: Tile) -> Tile {
  return Tile(a.r0 * b.r0, a.r1 * b.r1, a.r2 * b.r2, a.r3 * b.r3, a.r4 * b.r4, a.r5 * b.r5, a.r6 * b.r6, a.r7 * b.r7);
}

// Pairwise over the rows: a shorter chain of roundings than a running sum.
fn tile_sum(z: Tile) -> vec4f {
  return ((z.r0 + z.r1) + (z.r2 + z.r3)) + ((z.r4 + z.r5) + (z.r6 + z.r7));
}

// Row r becomes carry + z.r0 + ... + z.r(r).
fn tile_prefix(z: Tile, carry: vec4f) -> Tile {
  let s0 = carry + z.r0;
  let s1 = s0 + z.r1;
  let s2 = s1 + z.r2;
  let s3 = s2 + z.r3;
  let s4 = s3 + z.r4;
  let s5 = s4 + z.r5;
  let s6 = s5 + z.r6;
  return Tile(s0, s1, s2, s3, s4, s5, s6, s6 + z.r7);
}

fn tile_of_rows(a: vec4f, b: vec4f) -> Tile {
  return Tile(vec4f(a.x), vec4f(a.y), vec4f(a.z), vec4f(a.w), vec4f(b.x), vec4f(b.y), vec4f(b.z), vec4f(b.w));
}

// For epilogues only; a row chosen at run time costs a branch a row.
fn tile_row(z: Tile, r: u32) -> vec4f {
  switch r {
    case 0u: { return z.r0; }
    case 1u: { return z.r1; }
    case 2u: { return z.r2; }
    case 3u: { return z.r3; }
    case 4u: { return z.r4; }
    case 5u: { return z.r5; }
    case 6u: { return z.r6; }
    default: { return z.r7; }
  }
}
