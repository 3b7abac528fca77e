// Gradients of the sums that queries read -> their totals over blocks of queries; for causal masks also what each token of the block gets from it.
//
//   totals[block] = Σ_(queries t of the block) rows[t],   suffix: rows[n] <- Σ_(t of the block that see token n) rows[t],   in place
//
// Query t of a causal block sees tokens up to the end of its group of `ahead` tokens: token n is seen from the first query of its group on.
//
//   rows   [slab rows, rows_stride], k·E of each are used      table: cu_seqlens, see token_range.wgsl, whose tokens here are queries
//   totals [blocks, k·E]
//
// One invocation owns 4 channels of one block. What later blocks add to a causal token is added where the row is read (moments_backward.wgsl).
// Cost for T queries: reads T·k·E, writes k·E a block, and T·k·E for a suffix.
// Uses token_range, search_table.

struct Shape {
  stride4: u32,
  rows_stride4: u32,
  blocks: u32,
  block_tokens: u32,
  blocks_per_segment: u32,
  first_block: u32,
  first_segment: u32,
  segments_per_row: u32,
  segment_length: u32,
  row_tokens: u32,
  token_base: u32,
  range_mode: u32,
  packed_segments: u32,
  suffix: u32,
  ahead: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> table: array<u32>;
@group(0) @binding(2) var<storage, read_write> rows: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> totals: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let stride4 = shape.stride4;
  let channel = index % stride4;
  let block = index / stride4;
  if (block >= shape.blocks) {
    return;
  }
  let range = token_range(block);
  var sum = vec4f();
  var end = range.y;
  while (end > range.x) {
    let start = range.x + (end - range.x - 1u) / shape.ahead * shape.ahead;
    for (var t = end; t > start; t--) {
      sum += rows[(t - 1u) * shape.rows_stride4 + channel];
    }
    if (shape.suffix != 0u) {
      for (var t = start; t < end; t++) {
        rows[t * shape.rows_stride4 + channel] = sum;
      }
    }
    end = start;
  }
  totals[index] = sum;
}
