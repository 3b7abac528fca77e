// Like moments.wgsl, but every token leaves a row: the running sum of its block (causal masks), or its own moments (full masks).
//
//   running: rows[token, i] = Σ_(tokens of the block up to this one) m_i        plain: rows[token, i] = m_i(token)
//
// A block-causal mask in blocks of 2, 4 or 8 tokens is a running sum that sees to the end of its `ahead` tokens; these lie in one tile.
//
//   x     [tokens, D]      w [D + 1, 2·k·E]: ho_proj and se_proj, see moments.wgsl
//   constants, positions: see polynomial.wgsl; not read by HoM
//   rows  [slab tokens, k·E]; a slab is `blocks` blocks, blocks_per_segment of them a batch row
//
// One invocation owns the channels of a tile of every order and one block of tokens. The sum before the block is added where the row is read
// (select.wgsl, gate.wgsl): recomputing the block with a carry costs twice the products, a pass of its own 1.1-1.4 times the time.
// Cost for n tokens: 2·n·D·k·E FLOPs, writes n·k·E.
// Uses expand, tile, load_x, load_w, activations, token_range, search_table.

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
  running: u32,
  ahead: u32,
  slab_tokens: u32,
  filled: u32,
  degree: u32,
  group4: u32,
  positions_offset: u32,
  rotations: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<XElement>;
@group(0) @binding(2) var<storage, read> w: array<WElement>;
@group(0) @binding(3) var<storage, read> table: array<u32>;
@group(0) @binding(4) var<storage, read> constants: array<vec4f>;
@group(0) @binding(5) var<storage, read> positions: array<u32>;
@group(0) @binding(6) var<storage, read_write> rows: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let expand4 = shape.expand4;
  let stride4 = shape.stride4;
  let order = shape.order;
  let tiles = (expand4 + TILE_COLS4 - 1u) / TILE_COLS4;
  let channel = index % tiles * TILE_COLS4;
  let block = index / tiles;
  let columns = min(TILE_COLS4, expand4 - channel);
  if (block >= shape.blocks) {
    return;
  }
  let range = token_range(block);
  let row_base = (block / shape.blocks_per_segment) * shape.slab_tokens + (block % shape.blocks_per_segment) * shape.block_tokens;
  var sums: array<Columns, MAX_ORDER>;
  for (var token = range.x; token < range.y; token += TILE_ROWS) {
    let count = min(TILE_ROWS, range.y - token);
    let row = row_base + token - range.x;
    var e = expansion_of(tile_ones());
    for (var i = 0u; i < order; i++) {
      if (i % EXPANDED == 0u) {
        e = expand(e, token, range.y - 1u, i, channel);
      }
      let m = expanded(e, i % EXPANDED);
      var out: TileRows;
      if (shape.running != 0u) {
        out = tile_rows(tile_prefix(m, sums[i]));
        for (var c = 0u; c < TILE_COLS4; c++) {
          sums[i][c] = tile_at(&out, count - 1u, c);
        }
      } else {
        out = tile_rows(m);
      }
      for (var r = 0u; r < count; r++) {
        let seen = min((r / shape.ahead + 1u) * shape.ahead, count) - 1u;
        for (var c = 0u; c < columns; c++) {
          rows[(row + r) * stride4 + i * expand4 + channel + c] = tile_at(&out, seen, c);
        }
      }
    }
  }
  // mask_moments.wgsl reads whole groups of 4 tokens: stale memory there, times a weight of zero, could be NaN.
  if (shape.filled != 0u) {
    for (var row = row_base + range.y - range.x; row % 4u != 0u && row < row_base + shape.block_tokens; row++) {
      for (var i = 0u; i < order; i++) {
        for (var c = 0u; c < columns; c++) {
          rows[row * stride4 + i * expand4 + channel + c] = vec4f();
        }
      }
    }
  }
}
