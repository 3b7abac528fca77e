// Dense layer with its epilogue: the output projection of the two-kernel selection, and every Linear of the models.
//
//   y = residual + act(x Wᵀ + b)
//
//   x     [rows, inner]        w [inner + 1, outer]: weight transposed, then bias; outer padded to a multiple of 4
//   y, residual [rows, outer]  (residual read when has_residual is 1; at 2 it is y itself)
//
// One invocation, or the lanes of lanes.wgsl together, own a tile of rows x outputs. Cost: reads rows·inner, outer·inner weights, writes rows·outer; 2·rows·inner·outer FLOPs.
// Uses tile, lanes, load_x, load_w, store_y, activations.

struct Shape {
  inner: u32,
  inner4: u32,
  x_offset: u32,
  x_stride: u32,
  x_span: u32,
  x_pitch: u32,
  outer: u32,
  stride4: u32,
  slab_rows: u32,
  y_offset: u32,
  y_stride: u32,
  y_span: u32,
  y_pitch: u32,
  has_residual: u32,
  residual_offset: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<XElement>;
@group(0) @binding(2) var<storage, read> w: array<WElement>;
@group(0) @binding(3) var<storage, read> residual: array<YElement>;
@group(0) @binding(4) var<storage, read_write> y: array<YElement>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = lanes_tile(id.x + id.y * grid.x * WORKGROUP_SIZE);
  let stride4 = shape.stride4;
  let tiles = (stride4 + TILE_COLS4 - 1u) / TILE_COLS4;
  let col = index % tiles * TILE_COLS4;
  let row = index / tiles * TILE_ROWS;
  let inside = row < shape.slab_rows;
  if (!lanes_run(inside)) {
    return;
  }
  var z = tile_rows(tile_activate(tile_linear(row, shape.slab_rows - 1u, col, shape.inner4, stride4)));
  let count = select(0u, min(TILE_ROWS, shape.slab_rows - row), inside);
  for (var r = lanes_first(); r < count; r += SPLIT) {
    let base = y_base(row + r);
    for (var c = 0u; c < min(TILE_COLS4, stride4 - col); c++) {
      store_y(base, col + c, tile_at(&z, r, c));
    }
  }
}
