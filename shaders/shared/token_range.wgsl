// Which context tokens block `index` of this dispatch owns: [start, end) as rows of the bound x. An empty block has end <= start.
// Blocks are cut at fixed distances from the start of their segment, so that a segment's sums have the same bits in any batch.
// Needs search_table.wgsl; `table` holds the rows' lengths, or cu_seqlens [S + 1] and the number of each segment's first block [S + 1].

const RANGE_REGULAR: u32 = 0u;
const RANGE_LENGTHS: u32 = 1u;
const RANGE_PACKED: u32 = 2u;

fn token_range(index: u32) -> vec2u {
  if (shape.range_mode == RANGE_PACKED) {
    let block = shape.first_block + index;
    let starts = shape.packed_segments + 1u;
    let segment = search_table(starts, shape.packed_segments, block);
    let start = table[segment] + (block - table[starts + segment]) * shape.block_tokens;
    let end = min(start + shape.block_tokens, table[segment + 1u]);
    return vec2u(start - shape.token_base, max(start, end) - shape.token_base);
  }
  let segment = shape.first_segment + index / shape.blocks_per_segment;
  let row = segment / shape.segments_per_row;
  var row_end = shape.row_tokens;
  if (shape.range_mode == RANGE_LENGTHS) {
    row_end = table[row];
  }
  let segment_start = (segment % shape.segments_per_row) * shape.segment_length;
  let start = segment_start + (shape.first_block + index % shape.blocks_per_segment) * shape.block_tokens;
  let end = min(start + shape.block_tokens, min(segment_start + shape.segment_length, row_end));
  let origin = row * shape.row_tokens - shape.token_base;
  return vec2u(origin + start, origin + max(start, end));
}
