// Backward of apply_gates.wgsl over a slab of query rows: from the gradients of the gated moments to those of each channel's gate, which
// gates_backward.wgsl goes on from, and of the sums that the means were made of.
//
//   r = s ⊙ h_t,   ds = dr ⊙ h_t,   dsum = dr ⊙ s / divisor_t
//
//   gates, constants, positions, moments, table: see apply_gates.wgsl
//   rows       [slab rows, k·E]               in: sums, where the source is one of them; out: r, in place (with has_selection)
//   gradients  [slab rows, gradients_stride]  in: dr at column gates_at; out: ds at gates_at (with has_selection), dsum at sums_at (with has_sums),
//                                             which may be the same place where only one of them is wanted
//
// One invocation owns 4 channels of a row. Cost for T rows: reads T gates and 2·T·k·E, writes 3·T·k·E; 6·T·k·E FLOPs at most.
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
  gradients_stride4: u32,
  gates_at4: u32,
  sums_at4: u32,
  has_selection: u32,
  has_sums: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> gates: array<f32>;
@group(0) @binding(2) var<storage, read> constants: array<f32>;
@group(0) @binding(3) var<storage, read> positions: array<u32>;
@group(0) @binding(4) var<storage, read> moments: array<vec4f>;
@group(0) @binding(5) var<storage, read> table: array<u32>;
@group(0) @binding(6) var<storage, read_write> rows: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> gradients: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let col = index % shape.stride4;
  let row = index / shape.stride4;
  if (row >= shape.slab_rows) {
    return;
  }
  let at = row_source(row);
  let s = gates_of(row, col);
  let base = row * shape.gradients_stride4 + col;
  let dr = gradients[base + shape.gates_at4];
  if (shape.has_selection != 0u) {
    let h = row_moments(at, col);
    rows[row * shape.stride4 + col] = s * h;
    gradients[base + shape.gates_at4] = dr * h;
  }
  if (shape.has_sums != 0u) {
    // A query that sees nothing gives its mean's gradient to nobody.
    gradients[base + shape.sums_at4] = dr * s * select(0.0, 1.0 / at.divisor, at.from_rows || at.from_moments);
  }
}
