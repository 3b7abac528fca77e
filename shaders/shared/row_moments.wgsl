// h for a query row: which mean of the context's moments it may see. The kernel declares
//   moments [segments, k·E]: means, or the sums before each block   rows [slab rows, k·E]   table: cu_seqlens, the divisor of each row, or see PREFIX_TABLE

const SOURCE_SEGMENT: u32 = 0u; // moments[segment]: unmasked, padding, lengths, block-causal
const SOURCE_PACKED: u32 = 1u; // moments[segment], the segment found in table
const SOURCE_PREFIX: u32 = 2u; // (rows[row] + moments[block]) / tokens seen: causal, and block-causal in blocks of 2, 4, 8
const SOURCE_ROW: u32 = 3u; // rows[row] / table[row]: full masks
const SOURCE_MEAN: u32 = 4u; // rows[row]: decayed means

const PREFIX_TABLE_MASK: u32 = 1u; // table [batch rows, queries]: 0 for queries that see nothing
const PREFIX_TABLE_COUNTS: u32 = 2u; // table [batch rows]: tokens seen before this call

// A slab is a rectangle of batch rows and queries; its local row is (batch row, query).
fn query_of_row(row: u32) -> vec2u {
  return vec2u(shape.first_batch_row + row / shape.slab_queries, shape.first_query + row % shape.slab_queries);
}

// Where a row's moments are, found once for all its channels.
struct RowSource {
  rows_base: u32,
  moments_base: u32,
  from_rows: bool,
  from_moments: bool,
  divisor: f32,
}

fn row_source(row: u32) -> RowSource {
  let query = query_of_row(row);
  let stride4 = shape.stride4;
  switch shape.source {
    case SOURCE_PACKED: {
      let segment = search_table(0u, shape.packed_segments, query.y) - shape.first_segment;
      return RowSource(0u, segment * stride4, false, true, 1.0);
    }
    case SOURCE_PREFIX: {
      if (shape.prefix_table == PREFIX_TABLE_MASK) {
        if (table[query.x * shape.query_length + query.y] == 0u) {
          return RowSource(0u, 0u, false, false, 1.0);
        }
      }
      let block = row / shape.slab_queries * shape.slab_blocks + row % shape.slab_queries / shape.block_tokens;
      let seen = min((query.y / shape.segment_length + 1u) * shape.segment_length, shape.query_length);
      var count = f32(seen);
      if (shape.prefix_table == PREFIX_TABLE_COUNTS) {
        count += bitcast<f32>(table[shape.table_offset + query.x]);
      }
      return RowSource(row * stride4, block * stride4, true, true, count);
    }
    case SOURCE_ROW: {
      return RowSource(row * stride4, 0u, true, false, bitcast<f32>(table[shape.table_offset + row]));
    }
    case SOURCE_MEAN: {
      return RowSource(row * stride4, 0u, true, false, 1.0);
    }
    default: {
      let segment = query.x * shape.segments_per_row + query.y / shape.segment_length;
      return RowSource(0u, (segment - shape.first_segment) * stride4, false, true, 1.0);
    }
  }
}

fn row_moments(at: RowSource, col: u32) -> vec4f {
  var sum = vec4f();
  if (at.from_rows) {
    sum = rows[at.rows_base + col];
  }
  if (at.from_moments) {
    sum += moments[at.moments_base + col];
  }
  return sum / at.divisor;
}
