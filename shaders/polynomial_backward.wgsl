// Backward of PoM's expansion for a slab of context tokens: from the gradients of the sums of moments to those of the projection's outputs, which are
// computed anew, and of the coefficients.
//
//   u = x W_pᵀ + b,  a = act(u),  f = Σ_j coeff_j a^j;  m = f, or f turned by the token's position
//   df = g, or g turned back,  du = df ⊙ Σ_j j coeff_j a^(j-1) ⊙ act'(u),  dcoeff_j = Σ_tokens df ⊙ a^j;  g: the token's weight times the
//   gradient of its sum
//
//   x, w, constants, positions: see polynomial.wgsl
//   sums, table: see token_source.wgsl
//   rows       [slab rows, rows_stride]  k·E of each are used; in: gradients, where the source is in rows; out: du
//   gradients  [blocks, degree, k·E]     sums over blocks of rows, added to what is there (with accumulate)
//
// One invocation owns the channels of a tile, of one chunk or of two that are turned together, and one block of rows, which it walks in register
// tiles. Cost for n tokens: reads n·D, M·D weights and n·M, writes n·M, and degree·M a block; 2·n·D·M + 4·n·degree·M FLOPs.
// Uses expand, tile, load_x, load_w, activations, activation_gradients, token_source, search_table.

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
  degree: u32,
  group4: u32,
  rotations: u32,
  positions_offset: u32,
  first_row: u32,
  end_row: u32,
  blocks: u32,
  block_rows: u32,
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
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<XElement>;
@group(0) @binding(2) var<storage, read> w: array<WElement>;
@group(0) @binding(3) var<storage, read> sums: array<vec4f>;
@group(0) @binding(4) var<storage, read> table: array<u32>;
@group(0) @binding(5) var<storage, read> constants: array<vec4f>;
@group(0) @binding(6) var<storage, read> positions: array<u32>;
@group(0) @binding(7) var<storage, read_write> rows: array<vec4f>;
@group(0) @binding(8) var<storage, read_write> gradients: array<vec4f>;

// The tile of rows from `row` to `end`, and channels of chunks from `chunk` on. `adds`: the block's gradients already hold something.
fn backward(row: u32, end: u32, block: u32, chunk: u32, channel: u32, adds: bool) {
  let expand4 = shape.expand4;
  let degree = shape.degree;
  let count = min(TILE_ROWS, end - row);
  let columns = min(TILE_COLS4, expand4 - channel);
  var u: array<vec4f, EXPANDED * TILE_COLS4 * TILE_ROWS>;
  for (var i = 0u; i < EXPANDED; i++) {
    var tile = tile_rows(project(row, end - 1u, (chunk + i) * expand4 + channel));
    for (var c = 0u; c < columns; c++) {
      for (var r = 0u; r < count; r++) {
        u[(i * TILE_COLS4 + c) * TILE_ROWS + r] = tile_at(&tile, r, c);
      }
    }
  }
  for (var c = 0u; c < columns; c++) {
    let col = chunk * expand4 + channel + c;
    var df: array<vec4f, EXPANDED * TILE_ROWS>;
    for (var r = 0u; r < count; r++) {
      let at = token_source(row + r);
      if (at.weight == 0.0) {
        // Not looked at: what lies there, times 0, could be NaN.
        for (var i = 0u; i < EXPANDED; i++) {
          u[(i * TILE_COLS4 + c) * TILE_ROWS + r] = vec4f();
        }
        continue;
      }
      df[r] = token_gradient(at, row + r, col);
      if (EXPANDED == 2u) {
        let first = df[r];
        let second = token_gradient(at, row + r, col + expand4);
        df[r] = turn(first, second, 1.0, row + r, chunk / 2u, channel + c);
        df[(EXPANDED - 1u) * TILE_ROWS + r] = turn(second, first, -1.0, row + r, chunk / 2u, channel + c);
      }
    }
    for (var i = 0u; i < EXPANDED; i++) {
      let own = col + i * expand4;
      let first = (i * TILE_COLS4 + c) * TILE_ROWS;
      var power: array<vec4f, TILE_ROWS>;
      for (var r = 0u; r < count; r++) {
        power[r] = df[i * TILE_ROWS + r];
      }
      for (var j = 0u; j < degree; j++) {
        var sum = vec4f();
        for (var r = 0u; r < count; r++) {
          power[r] *= activate(u[first + r]);
          sum += power[r];
        }
        let at = (block * degree + j) * shape.stride4 + own;
        if (adds) {
          sum += gradients[at];
        }
        gradients[at] = sum;
      }
      for (var r = 0u; r < count; r++) {
        let a = activate(u[first + r]);
        var slope = f32(degree) * coefficient(degree - 1u, own);
        for (var j = degree - 1u; j > 0u; j--) {
          slope = slope * a + f32(j) * coefficient(j - 1u, own);
        }
        rows[(row + r) * shape.rows_stride4 + own] = df[i * TILE_ROWS + r] * slope * activate_gradient(u[first + r]);
      }
    }
  }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let tiles = (shape.expand4 + TILE_COLS4 - 1u) / TILE_COLS4;
  let channel = index % tiles * TILE_COLS4;
  let together = shape.order / EXPANDED;
  let chunk = index / tiles % together * EXPANDED;
  let block = index / tiles / together;
  if (block >= shape.blocks) {
    return;
  }
  let start = shape.first_row + block * shape.block_rows;
  let end = min(start + shape.block_rows, shape.end_row);
  for (var row = start; row < end; row += TILE_ROWS) {
    backward(row, end, block, chunk, channel, row > start || shape.accumulate != 0u);
  }
}
