// Layer norm without parameters of its own, scaled and shifted by a condition.
//
//   y[b, t] = (x - mean) / sqrt(variance + 1e-6) ⊙ (1 + s) + h,   mean and variance of the row
//
//   x, y    [B·tokens, D]
//   m       rows of modulations: s from scale_at + b·m_batch + t·m_token on, h from shift_at on likewise
//
// A workgroup owns a row; its sums are in a fixed order. The variance is that of the differences from the mean: no cancellation.
// Cost: reads 2·D and 2·D modulations a row, writes D; 8·D FLOPs. Uses workgroup_sum.

const EPSILON: f32 = 1e-6;

struct Shape {
  dim: u32,
  tokens: u32,
  rows: u32,
  scale_at: u32,
  shift_at: u32,
  m_batch: u32,
  m_token: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> m: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = group.x + group.y * grid.x;
  if (row >= shape.rows) {
    return;
  }
  let dim = shape.dim;
  let first = row * dim;
  var sum = 0.0;
  for (var c = local; c < dim; c += WORKGROUP_SIZE) {
    sum += x[first + c];
  }
  let mean = workgroup_sum(local, sum) / f32(dim);
  var squares = 0.0;
  for (var c = local; c < dim; c += WORKGROUP_SIZE) {
    let d = x[first + c] - mean;
    squares += d * d;
  }
  let scale = 1.0 / sqrt(workgroup_sum(local, squares) / f32(dim) + EPSILON);
  let at = row / shape.tokens * shape.m_batch + row % shape.tokens * shape.m_token;
  for (var c = local; c < dim; c += WORKGROUP_SIZE) {
    y[first + c] = (x[first + c] - mean) * scale * (1.0 + m[shape.scale_at + at + c]) + m[shape.shift_at + at + c];
  }
}
