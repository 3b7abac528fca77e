// Moments times gates that another dispatch has computed: of whole heads, or turned by the query's position, or of a layer whose projections do not lie
// side by side. Takes the place of gate.wgsl there.
//
//   rows[t, c] = s_t[c] · h_t[c],   s_t[c] = g(c),  or turned: g(c) cos - g(c') sin in the first of two chunks, g(c) cos + g(c') sin in the second
//
//   gates      [slab rows, gates_stride]   gate of channel j of chunk i: i·chunk_gates + j / head_width; c' is the same channel of the other chunk
//   constants  from `rotations` on cosines and sines [positions, 2, E] (read when turned); gate j of a chunk takes column j·column_step
//   positions  [batch rows, queries, k / 2]: rows of that table (read when turned)
//   moments, table: see row_moments.wgsl
//   rows       [slab rows, k·E]     in: running sums or weighted sums, where the source is one of them; out: gated moments, in place
//
// One invocation owns 4 channels of a row. Cost for T rows: reads T gates and moments, writes T·k·E; 3·T·k·E FLOPs at most.
// Uses gate_of, row_moments, search_table.

struct Shape {
  stride4: u32,
  expand4: u32,
  slab_rows: u32,
  gates_stride: u32,
  chunk_gates: u32,
  head_width: u32,
  planes: u32,
  column_step: u32,
  rotations: u32,
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
@group(0) @binding(1) var<storage, read> gates: array<f32>;
@group(0) @binding(2) var<storage, read> constants: array<f32>;
@group(0) @binding(3) var<storage, read> positions: array<u32>;
@group(0) @binding(4) var<storage, read> moments: array<vec4f>;
@group(0) @binding(5) var<storage, read> table: array<u32>;
@group(0) @binding(6) var<storage, read_write> rows: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let col = index % shape.stride4;
  let row = index / shape.stride4;
  if (row >= shape.slab_rows) {
    return;
  }
  rows[row * shape.stride4 + col] = gates_of(row, col) * row_moments(row_source(row), col);
}
