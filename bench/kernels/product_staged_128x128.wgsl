// Matrix product y = x w: a workgroup owns 128 rows x 128 columns and stages 16 inner at a time in workgroup memory.
//
//   x  [rows, inner]    w  [inner, outer]    y  [rows, outer]
//
// An invocation has 8 rows x 8 columns of it in registers. Rows and columns in multiples of 128, inner of 16.

struct Sizes {
  rows: u32,
  inner4: u32,
  outer4: u32,
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;

var<workgroup> sh_x: array<vec4f, 512>;
var<workgroup> sh_w: array<vec4f, 512>;

// sum + v m, for 4 inner x 4 outer weights m
fn add_product(sum: vec4f, v: vec4f, m: mat4x4f) -> vec4f {
  return fma(vec4f(v.w), m[3], fma(vec4f(v.z), m[2], fma(vec4f(v.y), m[1], fma(vec4f(v.x), m[0], sum))));
}

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row0 = group.y * 128u;
  let col0 = group.x * 32u;
  // a: 4 columns of the left half, b: of the right half.
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
  for (var k = 0u; k < sizes.inner4; k += 4u) {
    for (var i = lane; i < 512u; i += 256u) {
      sh_x[i] = x[(row0 + i / 4u) * sizes.inner4 + k + i % 4u];
      sh_w[i] = w[(4u * k + i / 32u) * sizes.outer4 + col0 + i % 32u];
    }
    workgroupBarrier();
    for (var i = 0u; i < 4u; i++) {
      let wi = i * 128u + local.x;
      let ma = mat4x4f(sh_w[wi], sh_w[wi + 32u], sh_w[wi + 64u], sh_w[wi + 96u]);
      let mb = mat4x4f(sh_w[wi + 16u], sh_w[wi + 48u], sh_w[wi + 80u], sh_w[wi + 112u]);
      let xi = local.y * 32u + i;
      let x0 = sh_x[xi];
      a0 = add_product(a0, x0, ma);
      b0 = add_product(b0, x0, mb);
      let x1 = sh_x[xi + 4u];
      a1 = add_product(a1, x1, ma);
      b1 = add_product(b1, x1, mb);
      let x2 = sh_x[xi + 8u];
      a2 = add_product(a2, x2, ma);
      b2 = add_product(b2, x2, mb);
      let x3 = sh_x[xi + 12u];
      a3 = add_product(a3, x3, ma);
      b3 = add_product(b3, x3, mb);
      let x4 = sh_x[xi + 16u];
      a4 = add_product(a4, x4, ma);
      b4 = add_product(b4, x4, mb);
      let x5 = sh_x[xi + 20u];
      a5 = add_product(a5, x5, ma);
      b5 = add_product(b5, x5, mb);
      let x6 = sh_x[xi + 24u];
      a6 = add_product(a6, x6, ma);
      b6 = add_product(b6, x6, mb);
      let x7 = sh_x[xi + 28u];
      a7 = add_product(a7, x7, ma);
      b7 = add_product(b7, x7, mb);
    }
    workgroupBarrier();
  }
  let out = (row0 + local.y * 8u) * sizes.outer4 + col0 + local.x;
  y[out] = a0;
  y[out + 16u] = b0;
  y[out + sizes.outer4] = a1;
  y[out + sizes.outer4 + 16u] = b1;
  y[out + 2u * sizes.outer4] = a2;
  y[out + 2u * sizes.outer4 + 16u] = b2;
  y[out + 3u * sizes.outer4] = a3;
  y[out + 3u * sizes.outer4 + 16u] = b3;
  y[out + 4u * sizes.outer4] = a4;
  y[out + 4u * sizes.outer4 + 16u] = b4;
  y[out + 5u * sizes.outer4] = a5;
  y[out + 5u * sizes.outer4 + 16u] = b5;
  y[out + 6u * sizes.outer4] = a6;
  y[out + 6u * sizes.outer4 + 16u] = b6;
  y[out + 7u * sizes.outer4] = a7;
  y[out + 7u * sizes.outer4 + 16u] = b7;
}
