// Backward of moments.wgsl for a slab of context tokens: from the gradients of the sums of moments to those of the projection's outputs, which are
// computed anew.
//
//   u = x W_hᵀ + b_h,  z = act(u),  m_1 = z_1,  m_i = z_i ⊙ m_(i-1)
//   dm_k = g_k,  dm_i = g_i + dm_(i+1) ⊙ z_(i+1),  du_i = dm_i ⊙ m_(i-1) ⊙ act'(u_i);   g: the token's weight times the gradient of its sum
//
//   x      [tokens, D]              w [D + 1, 2·k·E]: ho_proj and se_proj, see moments.wgsl
//   sums   [segments, k·E]          gradients of the sums of segments, or what the blocks after each one add to a causal token
//   table  lengths, or cu_seqlens   weights [tokens]: padding mask
//   rows   [slab rows, rows_stride] k·E of each are used; in: the causal sums inside blocks (sum_gradients.wgsl), or the gradients of the tokens'
//                                   moments, where the source is one of them; out: du
//
// One invocation owns a tile of tokens x channels of every order. Cost for n tokens: reads n·D, k·E·D weights and n·k·E, writes n·k·E;
// 2·n·D·k·E FLOPs.
// Uses tile, load_x, load_w, activations, activation_gradients, search_table.

const MAX_ORDER: u32 = 8u;

const SOURCE_SEGMENT: u32 = 0u; // sums[segment]: unmasked, padding, lengths, block-causal
const SOURCE_PACKED: u32 = 1u; // sums[segment], the segment found in table
const SOURCE_PREFIX: u32 = 2u; // rows[row] + sums[block]: causal, and block-causal in blocks of 2, 4, 8
const SOURCE_ROW: u32 = 3u; // rows[row]: full masks

const WEIGHTS_PADDING: u32 = 1u;
const WEIGHTS_LENGTHS: u32 = 2u;

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
  weights_offset: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<XElement>;
@group(0) @binding(2) var<storage, read> w: array<WElement>;
@group(0) @binding(3) var<storage, read> sums: array<vec4f>;
@group(0) @binding(4) var<storage, read> table: array<u32>;
@group(0) @binding(5) var<storage, read> weights: array<f32>;
@group(0) @binding(6) var<storage, read_write> rows: array<vec4f>;

// Where a token's gradients are, found once for all its channels.
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
    weight = weights[shape.weights_offset + row];
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
        var gradient = vec4f();
        if (at.from_rows) {
          gradient = rows[base + i * expand4];
        }
        if (at.from_sums) {
          gradient += sums[at.sums_base + i * expand4 + channel + c];
        }
        gradient = at.weight * gradient + from_above;
        from_above = gradient * activate(u[own + i]);
        // A token of weight 0 is not looked at: what lies there, times 0, could be NaN.
        rows[base + i * expand4] = select(gradient * below[i] * activate_gradient(u[own + i]), vec4f(), at.weight == 0.0);
      }
    }
  }
}
