enable subgroups;
// Matrix product y = x w: as product_direct_16x8.wgsl, but four neighbouring invocations load a row each and show it to one another.
//
//   x  [rows, inner]    w  [inner, outer]    y  [rows, outer]
//
// Rows in multiples of 16, inner of 4, columns of 32. The four of a quad have the same rows.

struct Sizes {
  rows: u32,
  inner4: u32,
  outer4: u32,
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;

// sum + v m, for 4 inner x 4 outer weights m
fn add_product(sum: vec4f, v: vec4f, m: mat4x4f) -> vec4f {
  return fma(vec4f(v.w), m[3], fma(vec4f(v.z), m[2], fma(vec4f(v.y), m[1], fma(vec4f(v.x), m[0], sum))));
}

fn load_weights(base: u32) -> mat4x4f {
  let n = sizes.outer4;
  return mat4x4f(w[base], w[base + n], w[base + 2u * n], w[base + 3u * n]);
}

@compute @workgroup_size(64)
fn main(
  @builtin(global_invocation_id) id: vec3u,
  @builtin(num_workgroups) grid: vec3u,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let index = id.x + id.y * grid.x * 64u;
  let n = sizes.inner4;
  let cols = sizes.outer4 / 2u;
  let col = index % cols * 2u;
  let row = index / cols * 16u;
  // Past the end a quad repeats the last rows: leaving early would end its neighbours' broadcasts.
  let first = min(row, sizes.rows - 16u);
  // a: the first 4 columns, b: the next.
  var a0 = vec4f();
  var b0 = vec4f();
  var a1 = vec4f();
  var b1 = vec4f();
  var a2 = vec4f();
  var b2 = vec4f();
  var a3 = vec4f();
  var b3 = vec4f();
  var a4 = vec4f();
  var b4 = vec4f();
  var a5 = vec4f();
  var b5 = vec4f();
  var a6 = vec4f();
  var b6 = vec4f();
  var a7 = vec4f();
  var b7 = vec4f();
  var a8 = vec4f();
  var b8 = vec4f();
  var a9 = vec4f();
  var b9 = vec4f();
  var a10 = vec4f();
  var b10 = vec4f();
  var a11 = vec4f();
  var b11 = vec4f();
  var a12 = vec4f();
  var b12 = vec4f();
  var a13 = vec4f();
  var b13 = vec4f();
  var a14 = vec4f();
  var b14 = vec4f();
  var a15 = vec4f();
  var b15 = vec4f();
  var xi = (first + (lane & 3u)) * n;
  var wi = col;
  for (var k = 0u; k < n; k++) {
    let ma = load_weights(wi);
    let mb = load_weights(wi + 1u);
    let own0 = x[xi];
    let x0 = quadBroadcast(own0, 0u);
    a0 = add_product(a0, x0, ma);
    b0 = add_product(b0, x0, mb);
    let x1 = quadBroadcast(own0, 1u);
    a1 = add_product(a1, x1, ma);
    b1 = add_product(b1, x1, mb);
    let x2 = quadBroadcast(own0, 2u);
    a2 = add_product(a2, x2, ma);
    b2 = add_product(b2, x2, mb);
    let x3 = quadBroadcast(own0, 3u);
    a3 = add_product(a3, x3, ma);
    b3 = add_product(b3, x3, mb);
    let own1 = x[xi + 4u * n];
    let x4 = quadBroadcast(own1, 0u);
    a4 = add_product(a4, x4, ma);
    b4 = add_product(b4, x4, mb);
    let x5 = quadBroadcast(own1, 1u);
    a5 = add_product(a5, x5, ma);
    b5 = add_product(b5, x5, mb);
    let x6 = quadBroadcast(own1, 2u);
    a6 = add_product(a6, x6, ma);
    b6 = add_product(b6, x6, mb);
    let x7 = quadBroadcast(own1, 3u);
    a7 = add_product(a7, x7, ma);
    b7 = add_product(b7, x7, mb);
    let own2 = x[xi + 8u * n];
    let x8 = quadBroadcast(own2, 0u);
    a8 = add_product(a8, x8, ma);
    b8 = add_product(b8, x8, mb);
    let x9 = quadBroadcast(own2, 1u);
    a9 = add_product(a9, x9, ma);
    b9 = add_product(b9, x9, mb);
    let x10 = quadBroadcast(own2, 2u);
    a10 = add_product(a10, x10, ma);
    b10 = add_product(b10, x10, mb);
    let x11 = quadBroadcast(own2, 3u);
    a11 = add_product(a11, x11, ma);
    b11 = add_product(b11, x11, mb);
    let own3 = x[xi + 12u * n];
    let x12 = quadBroadcast(own3, 0u);
    a12 = add_product(a12, x12, ma);
    b12 = add_product(b12, x12, mb);
    let x13 = quadBroadcast(own3, 1u);
    a13 = add_product(a13, x13, ma);
    b13 = add_product(b13, x13, mb);
    let x14 = quadBroadcast(own3, 2u);
    a14 = add_product(a14, x14, ma);
    b14 = add_product(b14, x14, mb);
    let x15 = quadBroadcast(own3, 3u);
    a15 = add_product(a15, x15, ma);
    b15 = add_product(b15, x15, mb);
    xi++;
    wi += 4u * sizes.outer4;
  }
  if (row >= sizes.rows) {
    return;
  }
  let out = row * sizes.outer4 + col;
  y[out] = a0;
  y[out + 1u] = b0;
  y[out + sizes.outer4] = a1;
  y[out + sizes.outer4 + 1u] = b1;
  y[out + 2u * sizes.outer4] = a2;
  y[out + 2u * sizes.outer4 + 1u] = b2;
  y[out + 3u * sizes.outer4] = a3;
  y[out + 3u * sizes.outer4 + 1u] = b3;
  y[out + 4u * sizes.outer4] = a4;
  y[out + 4u * sizes.outer4 + 1u] = b4;
  y[out + 5u * sizes.outer4] = a5;
  y[out + 5u * sizes.outer4 + 1u] = b5;
  y[out + 6u * sizes.outer4] = a6;
  y[out + 6u * sizes.outer4 + 1u] = b6;
  y[out + 7u * sizes.outer4] = a7;
  y[out + 7u * sizes.outer4 + 1u] = b7;
  y[out + 8u * sizes.outer4] = a8;
  y[out + 8u * sizes.outer4 + 1u] = b8;
  y[out + 9u * sizes.outer4] = a9;
  y[out + 9u * sizes.outer4 + 1u] = b9;
  y[out + 10u * sizes.outer4] = a10;
  y[out + 10u * sizes.outer4 + 1u] = b10;
  y[out + 11u * sizes.outer4] = a11;
  y[out + 11u * sizes.outer4 + 1u] = b11;
  y[out + 12u * sizes.outer4] = a12;
  y[out + 12u * sizes.outer4 + 1u] = b12;
  y[out + 13u * sizes.outer4] = a13;
  y[out + 13u * sizes.outer4 + 1u] = b13;
  y[out + 14u * sizes.outer4] = a14;
  y[out + 14u * sizes.outer4 + 1u] = b14;
  y[out + 15u * sizes.outer4] = a15;
  y[out + 15u * sizes.outer4 + 1u] = b15;
}
