// Matrix product y = x w: an invocation owns 8 rows x 4 columns in registers and shares nothing.
//
//   x  [rows, inner]    w  [inner, outer]    y  [rows, outer]
//
// Rows in multiples of 8, inner and columns of 4.

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
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * 64u;
  let n = sizes.inner4;
  let col = index % sizes.outer4;
  let row = index / sizes.outer4 * 8u;
  if (row >= sizes.rows) {
    return;
  }
  var a0 = vec4f();
  var a1 = vec4f();
  var a2 = vec4f();
  var a3 = vec4f();
  var a4 = vec4f();
  var a5 = vec4f();
  var a6 = vec4f();
  var a7 = vec4f();
  var xi = row * n;
  var wi = col;
  for (var k = 0u; k < n; k++) {
    let m = load_weights(wi);
    a0 = add_product(a0, x[xi], m);
    a1 = add_product(a1, x[xi + n], m);
    a2 = add_product(a2, x[xi + 2u * n], m);
    a3 = add_product(a3, x[xi + 3u * n], m);
    a4 = add_product(a4, x[xi + 4u * n], m);
    a5 = add_product(a5, x[xi + 5u * n], m);
    a6 = add_product(a6, x[xi + 6u * n], m);
    a7 = add_product(a7, x[xi + 7u * n], m);
    xi++;
    wi += 4u * sizes.outer4;
  }
  let out = row * sizes.outer4 + col;
  y[out] = a0;
  y[out + sizes.outer4] = a1;
  y[out + 2u * sizes.outer4] = a2;
  y[out + 3u * sizes.outer4] = a3;
  y[out + 4u * sizes.outer4] = a4;
  y[out + 5u * sizes.outer4] = a5;
  y[out + 6u * sizes.outer4] = a6;
  y[out + 7u * sizes.outer4] = a7;
}
