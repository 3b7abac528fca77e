// Selection: query projection -> gates -> times the moments. First of the two-kernel form of select.wgsl, over a slab of query rows.
//
//   rows[t, c] = gate(x_t · W_s[c]ᵀ + b_s[c]) · h_t[c],   h_t from row_moments.wgsl
//
//   x      [query rows, D]      w [D + 1, 2·k·E]: ho_proj and se_proj, see moments.wgsl
//   moments, table: see row_moments.wgsl
//   rows   [slab rows, k·E]     in: running sums or weighted sums, where the source is one of them; out: gated moments, in place
//
// One invocation owns a tile of query rows x channels. Cost for T rows: reads T·D, k·E·D weights, writes T·k·E; 2·T·D·k·E FLOPs.
// Uses tile, load_x, load_w, activations, row_moments, search_table.

struct Shape {
  inner: u32,
  inner4: u32,
  x_offset: u32,
  x_stride: u32,
  x_span: u32,
  x_pitch: u32,
  stride4: u32,
  slab_rows: u32,
  source: u32,
  first_batch_row: u32,
  first_query: u32,
  query_length: u32,
  slab_queries: u32,
  slab_blocks: u32,
  block_tokens: u32,
  first_segment: u32,
  segments_per_row: u32,
  segment_length: u32,
  packed_segments: u32,
  table_offset: u32,
  prefix_table: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<XElement>;
@group(0) @binding(2) var<storage, read> w: array<WElement>;
@group(0) @binding(3) var<storage, read> moments: array<vec4f>;
@group(0) @binding(4) var<storage, read> table: array<u32>;
@group(0) @binding(5) var<storage, read_write> rows: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let stride4 = shape.stride4;
  let tiles = (stride4 + TILE_COLS4 - 1u) / TILE_COLS4;
  let col = index % tiles * TILE_COLS4;
  let row = index / tiles * TILE_ROWS;
  if (row >= shape.slab_rows) {
    return;
  }
  let logits = tile_linear(row, shape.slab_rows - 1u, stride4 + col, shape.inner4, 2u * stride4);
  var gates = tile_rows(tile_gate(logits));
  for (var r = 0u; r < min(TILE_ROWS, shape.slab_rows - row); r++) {
    let at = row_source(row + r);
    for (var c = 0u; c < min(TILE_COLS4, stride4 - col); c++) {
      rows[(row + r) * stride4 + col + c] = tile_at(&gates, r, c) * row_moments(at, col + c);
    }
  }
}
