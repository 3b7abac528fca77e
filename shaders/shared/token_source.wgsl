// Where a context token finds the gradients of its moments, and the token's weight. `shape` has the uniforms of a GradientSource; the kernel declares
//   sums   [segments, k·E]: gradients of the sums of segments, or what the blocks after each one add to a causal token
//   table  lengths, cu_seqlens, or from table_offset on the padding mask, bits of f32
//   rows   [slab rows, rows_stride]: the causal sums inside blocks, or the gradients of the tokens' moments

const SOURCE_SEGMENT: u32 = 0u; // sums[segment]: unmasked, padding, lengths, block-causal
const SOURCE_PACKED: u32 = 1u; // sums[segment], the segment found in table
const SOURCE_PREFIX: u32 = 2u; // rows[row] + sums[block]: causal, and block-causal in blocks of 2, 4, 8
const SOURCE_ROW: u32 = 3u; // rows[row]: full masks

const WEIGHTS_PADDING: u32 = 1u;
const WEIGHTS_LENGTHS: u32 = 2u;

// Found once for all of a token's channels.
struct TokenSource {
  sums_base: u32,
  from_rows: bool,
  from_sums: bool,
  weight: f32,
}

fn token_source(row: u32) -> TokenSource {
  let batch_row = shape.first_batch_row + row / shape.slab_tokens;
  let token = shape.first_token + row % shape.slab_tokens;
  var weight = 1.0;
  if (shape.weighting == WEIGHTS_PADDING) {
    weight = bitcast<f32>(table[shape.table_offset + row]);
  } else if (shape.weighting == WEIGHTS_LENGTHS) {
    weight = select(0.0, 1.0, token < table[batch_row]);
  }
  switch shape.source {
    case SOURCE_PACKED: {
      let segment = search_table(0u, shape.packed_segments, token) - shape.first_segment;
      return TokenSource(segment * shape.stride4, false, true, weight);
    }
    case SOURCE_PREFIX: {
      let block = row / shape.slab_tokens * shape.slab_blocks + row % shape.slab_tokens / shape.block_tokens;
      return TokenSource(block * shape.stride4, true, true, weight);
    }
    case SOURCE_ROW: {
      return TokenSource(0u, true, false, weight);
    }
    default: {
      let segment = batch_row * shape.segments_per_row + token / shape.segment_length - shape.first_segment;
      return TokenSource(segment * shape.stride4, false, true, weight);
    }
  }
}

// The token's weight times the gradient of its sum.
fn token_gradient(at: TokenSource, row: u32, col: u32) -> vec4f {
  var gradient = vec4f();
  if (at.from_rows) {
    gradient = rows[row * shape.rows_stride4 + col];
  }
  if (at.from_sums) {
    gradient += sums[at.sums_base + col];
  }
  return at.weight * gradient;
}
