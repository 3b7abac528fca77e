// What everything after a block, or from a segment on, adds to the gradients of its tokens: a scan from the end, carried from slab to earlier slab.
//
//   blocks of a causal slab:   totals[row, b] <- Σ_(b' > b) totals[row, b'],   in place
//   segments, block-causal:    totals[row, s] <- Σ_(s' >= s) totals[row, s'] / min((s' + 1)·segment_length, row_tokens)
//
//   totals  [batch rows, blocks, k·E]     from sum_gradients.wgsl
//   running [batch rows, 2, k·E]          sum of whole groups of GROUP blocks, sum inside the current group
//
// One invocation owns 4 channels of one batch row and walks its blocks from the last to the first; two levels of sums, as in merge_moments.wgsl.
// Cost: reads and writes blocks·k·E.

struct Shape {
  batch_rows: u32,
  stride4: u32,
  blocks: u32,
  first_block: u32,
  segments: u32,
  segment_length: u32,
  row_tokens: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read_write> totals: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> running: array<vec4f>;

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
  for (var left = shape.blocks; left > 0u; left--) {
    let number = shape.first_block + left - 1u;
    if ((number + 1u) % GROUP == 0u) {
      base += sum;
      sum = vec4f();
    }
    let i = (batch_row * shape.blocks + left - 1u) * stride4 + channel;
    let total = totals[i];
    if (shape.segments != 0u) {
      let seen = min((number + 1u) * shape.segment_length, shape.row_tokens);
      sum += total / f32(seen);
      totals[i] = base + sum;
    } else {
      totals[i] = base + sum;
      sum += total;
    }
  }
  running[state] = base;
  running[state + stride4] = sum;
}
