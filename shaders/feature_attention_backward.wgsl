// Backward of the quotient of linear attention, y = Σ_s a_s v_s / n with n = Σ_s a_s: what every weight a_s is multiplied by to give its gradient.
//
//   da_s = g·v_s + h,   g = dy / n,   h = -dy·y / n
//
// A denominator nearer to 0 than DENOMINATOR_MIN gives y as in feature_attention.wgsl, and gradients of 0: the features have underflown.
//
//   dy      [rows, H, head4]
//   stats   [rows, H]              1 / n and h; out, or in with `is_second`
//   shares  [rows, H, head4 + 1]   in: Σ_s a_s v_s and n, in the first of its last four; out: g and h, in place. Only written with `is_second`
//   y       [rows, H, head4]       not written with `is_second`
//
// One invocation owns a row of one head. Cost: reads 2·rows·H·d, writes 2·rows·H·d; 5·rows·H·d FLOPs.

struct Shape {
  rows: u32,
  heads: u32,
  head4: u32,
  is_second: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> dy: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> stats: array<vec2f>;
@group(0) @binding(3) var<storage, read_write> shares: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;

const DENOMINATOR_MIN: f32 = 1e-30;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  if (index >= shape.rows * shape.heads) {
    return;
  }
  let head4 = shape.head4;
  let in_base = index * head4;
  let out_base = index * (head4 + 1u);
  var inverse = 0.0;
  var of_weights = 0.0;
  if (shape.is_second != 0u) {
    inverse = stats[index].x;
    of_weights = stats[index].y;
  } else {
    let denominator = shares[out_base + head4].x;
    let is_kept = abs(denominator) >= DENOMINATOR_MIN;
    var divisor = denominator;
    if (!is_kept) {
      divisor = select(DENOMINATOR_MIN, -DENOMINATOR_MIN, denominator < 0.0);
    }
    var product = 0.0;
    for (var k = 0u; k < head4; k++) {
      let value = shares[out_base + k] / divisor;
      y[in_base + k] = value;
      product += dot(dy[in_base + k], value);
    }
    if (is_kept) {
      inverse = 1.0 / denominator;
      of_weights = -product * inverse;
    }
    stats[index] = vec2f(inverse, of_weights);
  }
  for (var k = 0u; k < head4; k++) {
    shares[out_base + k] = dy[in_base + k] * inverse;
  }
  shares[out_base + head4] = vec4f(of_weights, 0.0, 0.0, 0.0);
}
