// Token shift: every token mixed with the one before it, each channel by its own share (as RWKV does before its projections, Peng et al. 2023).
//
//   y[b, t, c] = x[b, t, c] + mix[c] · (x[b, t-1, c] - x[b, t, c]),   x[b, -1] = previous[b], or zeros
//
//   x, y      [B·n, D]
//   mix_with  [D]       mix
//   previous  [B, D]    the token before the first (read when has_previous)
//   last      [B, D]    the last token of each row, for the next call (written when keeps_last)
//
// One invocation owns one number. Cost: reads 2·B·n·D, writes B·n·D.

struct Shape {
  tokens: u32,
  row_tokens: u32,
  dim: u32,
  has_previous: u32,
  keeps_last: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> mix_with: array<f32>;
@group(0) @binding(3) var<storage, read> previous: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read_write> last: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let dim = shape.dim;
  if (index >= shape.tokens * dim) {
    return;
  }
  let channel = index % dim;
  let row = index / dim / shape.row_tokens;
  let token = index / dim % shape.row_tokens;
  let own = x[index];
  var before = 0.0;
  if (token > 0u) {
    before = x[index - dim];
  } else if (shape.has_previous != 0u) {
    before = previous[row * dim + channel];
  }
  y[index] = fma(mix_with[channel], before - own, own);
  if (shape.keeps_last != 0u && token == shape.row_tokens - 1u) {
    last[row * dim + channel] = own;
  }
}
