// Matrix product y = x w: a workgroup owns 64 rows x 64 columns and stages 16 inner at a time in workgroup memory.
//
//   x  [rows, inner]    w  [inner, outer]    y  [rows, outer]
//
// An invocation has 4 rows x 4 columns of it in registers. Rows and columns in multiples of 64, inner of 16.

struct Sizes {
  rows: u32,
  inner4: u32,
  outer4: u32,
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;

var<workgroup> sh_x: array<vec4f, 256>;
var<workgroup> sh_w: array<vec4f, 256>;

// sum + v m, for 4 inner x 4 outer weights m
fn add_product(sum: vec4f, v: vec4f, m: mat4x4f) -> vec4f {
  return fma(vec4f(v.w), m[3], fma(vec4f(v.z), m[2], fma(vec4f(v.y), m[1], fma(vec4f(v.x), m[0], sum))));
}

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row0 = group.y * 64u;
  let col0 = group.x * 16u;
  var a0 = vec4f();
  var a1 = vec4f();
  var a2 = vec4f();
  var a3 = vec4f();
  for (var k = 0u; k < sizes.inner4; k += 4u) {
    sh_x[lane] = x[(row0 + lane / 4u) * sizes.inner4 + k + lane % 4u];
    sh_w[lane] = w[(4u * k + lane / 16u) * sizes.outer4 + col0 + lane % 16u];
    workgroupBarrier();
    for (var i = 0u; i < 4u; i++) {
      let wi = i * 64u + local.x;
      let m = mat4x4f(sh_w[wi], sh_w[wi + 16u], sh_w[wi + 32u], sh_w[wi + 48u]);
      let xi = local.y * 16u + i;
      a0 = add_product(a0, sh_x[xi], m);
      a1 = add_product(a1, sh_x[xi + 4u], m);
      a2 = add_product(a2, sh_x[xi + 8u], m);
      a3 = add_product(a3, sh_x[xi + 12u], m);
    }
    workgroupBarrier();
  }
  let out = (row0 + local.y * 4u) * sizes.outer4 + col0 + local.x;
  y[out] = a0;
  y[out + sizes.outer4] = a1;
  y[out + 2u * sizes.outer4] = a2;
  y[out + 3u * sizes.outer4] = a3;
}
