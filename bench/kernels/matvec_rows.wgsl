// Matrix-vector product y = w x with w [outer, inner]: SPLIT neighbouring invocations share one row of w.
//
//   x  [inner]    w  [outer, inner]    y  [outer]
//
// A workgroup has 64 / SPLIT rows. SPLIT, a power of two up to 64, is appended.

struct Sizes {
  rows: u32,
  inner4: u32,
  outer4: u32,
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const ROWS = 64u / SPLIT;

var<workgroup> sh_sum: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.x * ROWS + lane / SPLIT;
  var sum = vec4f();
  if (row < 4u * sizes.outer4) {
    for (var k = lane % SPLIT; k < sizes.inner4; k += SPLIT) {
      sum = fma(x[k], w[row * sizes.inner4 + k], sum);
    }
  }
  var total = (sum.x + sum.y) + (sum.z + sum.w);
  if (SPLIT == 1u) {
    if (row < 4u * sizes.outer4) {
      y[row] = total;
    }
    return;
  }
  sh_sum[lane] = total;
  workgroupBarrier();
  if (lane % SPLIT == 0u && row < 4u * sizes.outer4) {
    for (var i = 1u; i < SPLIT; i++) {
      total += sh_sum[lane + i];
    }
    y[row] = total;
  }
}
