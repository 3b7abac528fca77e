// Full masks: every query row sums the moments of a slab of tokens with its own weights.
//
//   rows[t, c] (+)= Σ_(n in slab) mask[t, n] · m[n, c]
//
//   x     [query rows, N]          the mask, read as the left factor of a product
//   w     [slab tokens, k·E]       plain moments of the slab (prefix_moments.wgsl), rows past its end zero
//   rows  [query rows, k·E]
//
// One invocation owns a tile of query rows x channels. Cost for T rows and n tokens: 2·T·n·k·E FLOPs.
// Uses tile, load_x, load_w, activations (unused).

struct Shape {
  inner: u32,
  inner4: u32,
  x_offset: u32,
  x_stride: u32,
  x_span: u32,
  x_pitch: u32,
  stride4: u32,
  query_rows: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<XElement>;
@group(0) @binding(2) var<storage, read> w: array<WElement>;
@group(0) @binding(3) var<storage, read_write> rows: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let stride4 = shape.stride4;
  let tiles = (stride4 + TILE_COLS4 - 1u) / TILE_COLS4;
  let col = index % tiles * TILE_COLS4;
  let row = index / tiles * TILE_ROWS;
  if (row >= shape.query_rows) {
    return;
  }
  var sums = tile_rows(tile_product(row, shape.query_rows - 1u, col, shape.inner4, stride4));
  for (var r = 0u; r < min(TILE_ROWS, shape.query_rows - row); r++) {
    for (var c = 0u; c < min(TILE_COLS4, stride4 - col); c++) {
      let i = (row + r) * stride4 + col + c;
      if (shape.accumulate != 0u) {
        rows[i] += tile_at(&sums, r, c);
      } else {
        rows[i] = tile_at(&sums, r, c);
      }
    }
  }
}
