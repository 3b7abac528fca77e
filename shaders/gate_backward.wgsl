// Backward of the selection, over a slab of query rows: from the gradient of the gated moments to those of the gates' logits and of the sums that
// the means were made of. The gates are computed anew.
//
//   s = gate(l),  l = x_t · W_s[c]ᵀ + b_s[c],   r = s ⊙ h_t,   dlogit = dr ⊙ h_t ⊙ gate'(l),   dsum = dr ⊙ s / divisor_t;   h_t from row_moments.wgsl;
//   gate' is s (1 - s), or of a hard sigmoid 1 / 6 where |l| < 3
//
//   x      [query rows, D]      w [D + 1, 2·k·E]: ho_proj and se_proj, see moments.wgsl
//   moments, table: see row_moments.wgsl; the divisor is 1 where whole means are read
//   rows   [slab rows, k·E]     in: running sums or weighted sums, where the source is one of them; out: r, in place (with has_selection)
//   gradients [slab rows, gradients_stride]   in: dr at column logits_at; out: dlogit at logits_at (with has_selection), dsum at sums_at
//                               (with has_sums), which may be the same place where only one of them is wanted
//
// One invocation owns a tile of query rows x channels. Cost for T rows: reads T·D, k·E·D weights and 2·T·k·E, writes 3·T·k·E; 2·T·D·k·E FLOPs.
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
  gradients_stride4: u32,
  logits_at4: u32,
  sums_at4: u32,
  has_selection: u32,
  has_sums: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<XElement>;
@group(0) @binding(2) var<storage, read> w: array<WElement>;
@group(0) @binding(3) var<storage, read> moments: array<vec4f>;
@group(0) @binding(4) var<storage, read> table: array<u32>;
@group(0) @binding(5) var<storage, read_write> rows: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> gradients: array<vec4f>;

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
  var logits = tile_rows(tile_linear(row, shape.slab_rows - 1u, stride4 + col, shape.inner4, 2u * stride4));
  for (var r = 0u; r < min(TILE_ROWS, shape.slab_rows - row); r++) {
    let at = row_source(row + r);
    // A query that sees nothing gives its mean's gradient to nobody.
    let share = select(0.0, 1.0 / at.divisor, at.from_rows || at.from_moments);
    let base = (row + r) * shape.gradients_stride4;
    for (var c = 0u; c < min(TILE_COLS4, stride4 - col); c++) {
      let logit = tile_at(&logits, r, c);
      let s = gate(logit);
      let dr = gradients[base + shape.logits_at4 + col + c];
      if (shape.has_selection != 0u) {
        let h = row_moments(at, col + c);
        rows[(row + r) * stride4 + col + c] = s * h;
        var dlogit = dr * h;
        if (GATE == GATE_HARD_SIGMOID) {
          dlogit = select(vec4f(), dlogit / 6.0, abs(logit) < vec4f(3.0));
        } else {
          // 1 - s, without the cancellation.
          dlogit = dlogit * s * sigmoid(-logit);
        }
        gradients[base + shape.logits_at4 + col + c] = dlogit;
      }
      if (shape.has_sums != 0u) {
        gradients[base + shape.sums_at4 + col + c] = dr * s * share;
      }
    }
  }
}
