// The sum of everything before each block of a causal slab: an exclusive scan of the block totals, carried from slab to slab.
//
//   carry[row, block] = initial[row] + base + Σ_(earlier blocks of the group) total;   total[row, block] = last row of the block in `rows`
//
//   rows    [batch rows, slab tokens, k·E]   running sums within blocks (prefix_moments.wgsl)
//   running [batch rows, 2, k·E]             sum of whole groups of GROUP blocks, sum inside the current group
//   initial [batch rows, k·E]                what a state saw before this call (read when has_initial); not part of running
//   carry   [batch rows, blocks, k·E]
//
// One invocation owns 4 channels of one batch row and walks its blocks; two levels of sums, as in merge_moments.wgsl.
// Cost: reads and writes blocks·k·E.

struct Shape {
  batch_rows: u32,
  stride4: u32,
  blocks: u32,
  block_tokens: u32,
  slab_tokens: u32,
  first_block: u32,
  accumulate: u32,
  has_initial: u32,
  first_batch_row: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> rows: array<vec4f>;
@group(0) @binding(2) var<storage, read> initial: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> running: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> carry: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let stride4 = shape.stride4;
  let channel = index % stride4;
  let batch_row = index / stride4;
  if (batch_row >= shape.batch_rows) {
    return;
  }
  let state = batch_row * 2u * stride4 + channel;
  var base = vec4f();
  var sum = vec4f();
  if (shape.accumulate != 0u) {
    base = running[state];
    sum = running[state + stride4];
  }
  var before = vec4f();
  if (shape.has_initial != 0u) {
    before = initial[(shape.first_batch_row + batch_row) * stride4 + channel];
  }
  for (var block = 0u; block < shape.blocks; block++) {
    if ((shape.first_block + block) % GROUP == 0u) {
      base += sum;
      sum = vec4f();
    }
    carry[(batch_row * shape.blocks + block) * stride4 + channel] = before + (base + sum);
    let last = min((block + 1u) * shape.block_tokens, shape.slab_tokens) - 1u;
    sum += rows[(batch_row * shape.slab_tokens + last) * stride4 + channel];
  }
  running[state] = base;
  running[state + stride4] = sum;
}
