// Matrix-vector product y = x w with w [inner, outer]: an invocation owns 4 outputs and every SPLIT-th row of w.
//
//   x  [inner]    w  [inner, outer]    y  [outer]
//
// A workgroup has 64 / SPLIT columns of four outputs x SPLIT shares of the rows, which it adds up at the end. SPLIT, a power of two up to 64, is appended.

struct Sizes {
  rows: u32,
  inner4: u32,
  outer4: u32,
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;

const COLUMNS = 64u / SPLIT;

var<workgroup> sh_sum: array<vec4f, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let col = group.x * COLUMNS + lane % COLUMNS;
  var sum = vec4f();
  if (col < sizes.outer4) {
    for (var k = lane / COLUMNS; k < sizes.inner4; k += SPLIT) {
      let v = x[k];
      let i = 4u * k * sizes.outer4 + col;
      sum = fma(vec4f(v.x), w[i], sum);
      sum = fma(vec4f(v.y), w[i + sizes.outer4], sum);
      sum = fma(vec4f(v.z), w[i + 2u * sizes.outer4], sum);
      sum = fma(vec4f(v.w), w[i + 3u * sizes.outer4], sum);
    }
  }
  if (SPLIT == 1u) {
    if (col < sizes.outer4) {
      y[col] = sum;
    }
    return;
  }
  sh_sum[lane] = sum;
  workgroupBarrier();
  if (lane < COLUMNS && col < sizes.outer4) {
    for (var i = lane + COLUMNS; i < 64u; i += COLUMNS) {
      sum += sh_sum[i];
    }
    y[col] = sum;
  }
}
