// Backward of moments.wgsl for a slab of context tokens: from the gradients of the sums of moments to those of the projection's outputs, which are
// computed anew.
//
//   u = x W_hᵀ + b_h,  z = act(u),  m_1 = z_1,  m_i = z_i ⊙ m_(i-1)
//   dm_k = g_k,  dm_i = g_i + dm_(i+1) ⊙ z_(i+1),  du_i = dm_i ⊙ m_(i-1) ⊙ act'(u_i);   g: the token's weight times the gradient of its sum
//
//   x      [tokens, D]              w [D + 1, 2·k·E]: ho_proj and se_proj, see moments.wgsl
//   sums, table: see token_source.wgsl
//   rows   [slab rows, rows_stride] k·E of each are used; in: the causal sums inside blocks (sum_gradients.wgsl), or the gradients of the tokens'
//                                   moments, where the source is one of them; out: du
//
// One invocation owns a tile of tokens x channels of every order. Cost for n tokens: reads n·D, k·E·D weights and n·k·E, writes n·k·E;
// 2·n·D·k·E FLOPs.
// Uses tile, load_x, load_w, activations, activation_gradients, token_source, search_table.

const MAX_ORDER: u32 = 8u;

struct Shape {
  inner: u32,
  inner4: u32,
  x_offset: u32,
  x_stride: u32,
  x_span: u32,
  x_pitch: u32,
  order: u32,
  expand4: u32,
  stride4: u32,
  w_stride4: u32,
  slab_rows: u32,
  rows_stride4: u32,
  source: u32,
  first_batch_row: u32,
  first_token: u32,
  slab_tokens: u32,
  slab_blocks: u32,
  block_tokens: u32,
  first_segment: u32,
  segments_per_row: u32,
  segment_length: u32,
  packed_segments: u32,
  weighting: u32,
  table_offset: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<XElement>;
@group(0) @binding(2) var<storage, read> w: array<WElement>;
@group(0) @binding(3) var<storage, read> sums: array<vec4f>;
@group(0) @binding(4) var<storage, read> table: array<u32>;
@group(0) @binding(5) var<storage, read_write> rows: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let order = shape.order;
  let expand4 = shape.expand4;
  let tiles = (expand4 + TILE_COLS4 - 1u) / TILE_COLS4;
  let channel = index % tiles * TILE_COLS4;
  let row = index / tiles * TILE_ROWS;
  if (row >= shape.slab_rows) {
    return;
  }
  let count = min(TILE_ROWS, shape.slab_rows - row);
  let columns = min(TILE_COLS4, expand4 - channel);
  var u: array<vec4f, MAX_ORDER * TILE_ROWS * TILE_COLS4>;
  for (var i = 0u; i < order; i++) {
    var tile = tile_rows(tile_linear(row, shape.slab_rows - 1u, i * expand4 + channel, shape.inner4, shape.w_stride4));
    for (var r = 0u; r < count; r++) {
      for (var c = 0u; c < columns; c++) {
        u[(r * TILE_COLS4 + c) * MAX_ORDER + i] = tile_at(&tile, r, c);
      }
    }
  }
  for (var r = 0u; r < count; r++) {
    let at = token_source(row + r);
    for (var c = 0u; c < columns; c++) {
      let own = (r * TILE_COLS4 + c) * MAX_ORDER;
      let base = (row + r) * shape.rows_stride4 + channel + c;
      var below: array<vec4f, MAX_ORDER>; // m_(i-1)
      var product = vec4f(1.0);
      for (var i = 0u; i < order; i++) {
        below[i] = product;
        product *= activate(u[own + i]);
      }
      var from_above = vec4f();
      for (var left = order; left > 0u; left--) {
        let i = left - 1u;
        let gradient = token_gradient(at, row + r, i * expand4 + channel + c) + from_above;
        from_above = gradient * activate(u[own + i]);
        // A token of weight 0 is not looked at: what lies there, times 0, could be NaN.
        rows[base + i * expand4] = select(gradient * below[i] * activate_gradient(u[own + i]), vec4f(), at.weight == 0.0);
      }
    }
  }
}
