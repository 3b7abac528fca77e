// Backward of shift.wgsl, for rows that nothing came before.
//
//   dx[b, t, c] += (1 - mix[c]) · dy[b, t, c] + mix[c] · dy[b, t+1, c]          partial[block, c] = Σ over the block's tokens of dy[t, c] · (x[t-1, c] - x[t, c])
//
//   x, dy, dx  [B·n, D]                   dx: what is there is added to
//   mix_with   [D]                        mix
//   partial    [blocks, D padded to 4]    sums for the gradient of mix, see merge_gradients.wgsl
//
// One invocation owns a channel of a block of one row's tokens. Cost: reads 5·B·n·D, writes B·n·D.

struct Shape {
  row_tokens: u32,
  dim: u32,
  padded: u32,
  blocks: u32,
  row_blocks: u32,
  block_tokens: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> mix_with: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;
@group(0) @binding(5) var<storage, read_write> partial: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let dim = shape.dim;
  let block = index / shape.padded;
  let channel = index % shape.padded;
  if (block >= shape.blocks) {
    return;
  }
  var sum = 0.0;
  if (channel < dim) {
    let share = mix_with[channel];
    let row_base = block / shape.row_blocks * shape.row_tokens * dim + channel;
    let first = block % shape.row_blocks * shape.block_tokens;
    let end = min(first + shape.block_tokens, shape.row_tokens);
    var before = 0.0;
    if (first > 0u) {
      before = x[row_base + (first - 1u) * dim];
    }
    for (var token = first; token < end; token++) {
      let i = row_base + token * dim;
      let own = x[i];
      let gradient = dy[i];
      var later = 0.0;
      if (token + 1u < shape.row_tokens) {
        later = dy[i + dim];
      }
      dx[i] += fma(share, later - gradient, gradient);
      sum = fma(gradient, before - own, sum);
      before = own;
    }
  }
  partial[index] = sum;
}
