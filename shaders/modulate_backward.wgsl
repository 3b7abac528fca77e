// Gradients of a layer norm that a condition scales and shifts (modulate.wgsl): of its rows, and of each row's scale and shift.
//
//   n = (x - mean) / d,   d = sqrt(variance + 1e-6),   g = dy ⊙ (1 + s)
//   dx = (g - mean(g) - n ⊙ mean(g ⊙ n)) / d,   ds = dy ⊙ n,   dh = dy
//
//   x, dx   [B·tokens, D], dx added to what it holds when accumulate
//   m       rows of modulations: s from scale_at + b·m_batch + t·m_token on
//   dy      [B·(tokens - first), D]: tokens before `first` have a gradient of 0
//   dm      rows of dm_step numbers, one a token: ds from number dm_scale_at of a row on, dh from dm_shift_at on
//
// A workgroup owns a row; its sums are in a fixed order.
// Cost: reads 2·D and D modulations a row, writes 3·D; 20·D FLOPs. Uses workgroup_sum.

const EPSILON: f32 = 1e-6;

struct Shape {
  dim: u32,
  tokens: u32,
  rows: u32,
  first: u32,
  scale_at: u32,
  m_batch: u32,
  m_token: u32,
  dm_step: u32,
  dm_scale_at: u32,
  dm_shift_at: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> m: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;
@group(0) @binding(5) var<storage, read_write> dm: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = group.x + group.y * grid.x;
  if (row >= shape.rows) {
    return;
  }
  let dim = shape.dim;
  let x_at = row * dim;
  let dm_at = row * shape.dm_step;
  let b = row / shape.tokens;
  let t = row % shape.tokens;
  if (t < shape.first) {
    for (var c = local; c < dim; c += WORKGROUP_SIZE) {
      dm[dm_at + shape.dm_scale_at + c] = 0.0;
      dm[dm_at + shape.dm_shift_at + c] = 0.0;
      if (shape.accumulate == 0u) {
        dx[x_at + c] = 0.0;
      }
    }
    return;
  }
  var sum = 0.0;
  for (var c = local; c < dim; c += WORKGROUP_SIZE) {
    sum += x[x_at + c];
  }
  let mean = workgroup_sum(local, sum) / f32(dim);
  var squares = 0.0;
  for (var c = local; c < dim; c += WORKGROUP_SIZE) {
    let d = x[x_at + c] - mean;
    squares += d * d;
  }
  let scale = 1.0 / sqrt(workgroup_sum(local, squares) / f32(dim) + EPSILON);
  let dy_at = (b * (shape.tokens - shape.first) + t - shape.first) * dim;
  let s_at = shape.scale_at + b * shape.m_batch + t * shape.m_token;
  var along = 0.0;
  var across = 0.0;
  for (var c = local; c < dim; c += WORKGROUP_SIZE) {
    let g = dy[dy_at + c] * (1.0 + m[s_at + c]);
    along += g;
    across += g * (x[x_at + c] - mean) * scale;
  }
  along = workgroup_sum(local, along) / f32(dim);
  across = workgroup_sum(local, across) / f32(dim);
  for (var c = local; c < dim; c += WORKGROUP_SIZE) {
    let n = (x[x_at + c] - mean) * scale;
    let dshift = dy[dy_at + c];
    dm[dm_at + shape.dm_scale_at + c] = dshift * n;
    dm[dm_at + shape.dm_shift_at + c] = dshift;
    var value = (dshift * (1.0 + m[s_at + c]) - along - n * across) * scale;
    if (shape.accumulate != 0u) {
      value += dx[x_at + c];
    }
    dx[x_at + c] = value;
  }
}
