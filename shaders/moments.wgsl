// Context tokens -> projection -> activation -> expansion -> sum over a block of tokens, in one dispatch.
//
//   z_i = act(x W_iᵀ + b_i),  m = expansion of z,   partial[block, i] = Σ_(tokens of the block) weight · m_i
//
// The expansion is HoM's (expand_products.wgsl: m_1 = z_1, m_i = z_i ⊙ m_(i-1)) or PoM's (expand_polynomial.wgsl, expand_rotary.wgsl); k stands for the
// chunks that it cuts the channels into: orders, or 1, 2 or 4.
//
//   x        [tokens, D]            context tokens
//   w        [D + 1, 2·k·E]         ho_proj and se_proj side by side: weight transposed, then bias; E = e·D, padded to a multiple of 4
//   weights  [tokens]               padding mask (read when has_weights)
//   table                           lengths or cu_seqlens, see token_range.wgsl
//   constants, positions            see polynomial.wgsl; not read by HoM
//   partial  [blocks, k·E]
//
// One invocation owns the channels of a tile, of every order, and one block of tokens, which it walks in register tiles; nothing is shared,
// so there is no barrier and no idle lane for a small E. Neighbouring lanes read neighbouring weights and the same token.
// Cost for N tokens: reads N·D tokens and k·E·D weights, writes k·E a block; 2·N·D·k·E + N·k·E + N·(k-1)·E FLOPs.
// Uses expand, tile, load_x, load_w, activations, token_range, search_table.
// Tried and lost: all k accumulator tiles at once (k times the registers for the same number of weight loads).

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
  has_weights: u32,
  weights_offset: u32,
  degree: u32,
  group4: u32,
  positions_offset: u32,
  rotations: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<XElement>;
@group(0) @binding(2) var<storage, read> w: array<WElement>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read> table: array<u32>;
@group(0) @binding(5) var<storage, read> constants: array<vec4f>;
@group(0) @binding(6) var<storage, read> positions: array<u32>;
@group(0) @binding(7) var<storage, read_write> partial: array<vec4f>;

fn token_weight(token: u32, end: u32) -> f32 {
  if (token >= end) {
    return 0.0;
  }
  if (shape.has_weights != 0u) {
    return weights[shape.weights_offset + token];
  }
  return 1.0;
}

fn token_weights(token: u32, end: u32) -> array<vec4f, TILE_ROWS / 4u> {
  var weights: array<vec4f, TILE_ROWS / 4u>;
  for (var i = 0u; i < TILE_ROWS / 4u; i++) {
    let t = token + 4u * i;
    weights[i] = vec4f(token_weight(t, end), token_weight(t + 1u, end), token_weight(t + 2u, end), token_weight(t + 3u, end));
  }
  return weights;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let expand4 = shape.expand4;
  let stride4 = shape.stride4;
  let order = shape.order;
  let tiles = (expand4 + TILE_COLS4 - 1u) / TILE_COLS4;
  let channel = index % tiles * TILE_COLS4;
  let block = index / tiles;
  if (block >= shape.blocks) {
    return;
  }
  let range = token_range(block);
  var sums: array<Columns, MAX_ORDER>;
  for (var token = range.x; token < range.y; token += TILE_ROWS) {
    // The weight enters with the first factor and so is part of every moment.
    var e = expansion_of(tile_of_rows(token_weights(token, range.y)));
    for (var i = 0u; i < order; i++) {
      if (i % EXPANDED == 0u) {
        e = expand(e, token, range.y - 1u, i, channel);
      }
      sums[i] = tile_accumulate(expanded(e, i % EXPANDED), sums[i]);
    }
  }
  for (var i = 0u; i < order; i++) {
    for (var c = 0u; c < min(TILE_COLS4, expand4 - channel); c++) {
      partial[block * stride4 + i * expand4 + channel + c] = sums[i][c];
    }
  }
}
