// Query projection -> gates -> times the moments -> output projection, in one dispatch; the gated row never reaches memory.
//
//   y_t = residual_t + W_a (gate(W_s x_t + b_s) ⊙ h_t) + b_a,   h_t from row_moments.wgsl
//
//   x      [query rows, D]     w [D + 1, 2·k·E]: ho_proj and se_proj, see moments.wgsl
//   w_out  [k·E + 1, D]: ag_proj.weight transposed, then ag_proj.bias; D <= 4·LANES
//   moments, rows, table: see row_moments.wgsl
//   y, residual [query rows, D]  (residual read when has_residual)
//
// A workgroup owns ROW_GROUPS tiles of 8 query rows and all D outputs. It walks the k·E channels in stretches of 4·LANES:
// each lane gates its 4 channels of a tile into workgroup memory, then adds the stretch to its 4 outputs of that tile.
// Cost for T rows: reads T·D and 2·k·E·D weights a workgroup, writes T·D; 4·T·D·k·E FLOPs.
// Uses tile, load_x, load_w, store_y, activations, row_moments, search_table.

struct Shape {
  inner: u32,
  inner4: u32,
  x_offset: u32,
  x_stride: u32,
  x_span: u32,
  x_pitch: u32,
  outer: u32,
  outer4: u32,
  stride4: u32,
  slab_rows: u32,
  y_offset: u32,
  y_stride: u32,
  y_span: u32,
  y_pitch: u32,
  has_residual: u32,
  residual_offset: u32,
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
@group(0) @binding(1) var<storage, read> x: array<XElement>;
@group(0) @binding(2) var<storage, read> w: array<WElement>;
@group(0) @binding(3) var<storage, read> w_out: array<vec4f>;
@group(0) @binding(4) var<storage, read> moments: array<vec4f>;
@group(0) @binding(5) var<storage, read> rows: array<vec4f>;
@group(0) @binding(6) var<storage, read> table: array<u32>;
@group(0) @binding(7) var<storage, read> residual: array<YElement>;
@group(0) @binding(8) var<storage, read_write> y: array<YElement>;

const ROW_GROUPS: u32 = WORKGROUP_SIZE / LANES;

// [row of the workgroup, lane]
var<workgroup> sh_gated: array<vec4f, WORKGROUP_SIZE * TILE_ROWS>;

fn add_gated(z: vec4f, m: mat4x4f, row: u32, lane: u32) -> vec4f {
  return z + m * sh_gated[row * LANES + lane];
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) local: u32) {
  let stride4 = shape.stride4;
  let outer4 = shape.outer4;
  let inner4 = shape.inner4;
  let lane = local % LANES;
  let sh_row = local / LANES * TILE_ROWS;
  let row = (group.x + group.y * grid.x) * ROW_GROUPS * TILE_ROWS + sh_row;
  let last = shape.slab_rows - 1u;
  var r0 = vec4f();
  var r1 = vec4f();
  var r2 = vec4f();
  var r3 = vec4f();
  var r4 = vec4f();
  var r5 = vec4f();
  var r6 = vec4f();
  var r7 = vec4f();
  for (var first = 0u; first < stride4; first += LANES) {
    let col = first + lane;
    if (col < stride4) {
      let logits = tile_linear(row, last, stride4 + col, inner4, 2u * stride4);
      for (var r = 0u; r < TILE_ROWS; r++) {
        sh_gated[(sh_row + r) * LANES + lane] = gate(tile_row(logits, r, 0u)) * row_moments(row_source(min(row + r, last)), col);
      }
    }
    workgroupBarrier();
    if (lane < outer4) {
      var i = 4u * first * outer4 + lane;
      for (var k = 0u; k < min(LANES, stride4 - first); k++) {
        let m = mat4x4f(w_out[i], w_out[i + outer4], w_out[i + 2u * outer4], w_out[i + 3u * outer4]);
        i += 4u * outer4;
        r0 = add_gated(r0, m, sh_row, k);
        r1 = add_gated(r1, m, sh_row + 1u, k);
        r2 = add_gated(r2, m, sh_row + 2u, k);
        r3 = add_gated(r3, m, sh_row + 3u, k);
        r4 = add_gated(r4, m, sh_row + 4u, k);
        r5 = add_gated(r5, m, sh_row + 5u, k);
        r6 = add_gated(r6, m, sh_row + 6u, k);
        r7 = add_gated(r7, m, sh_row + 7u, k);
      }
    }
    workgroupBarrier();
  }
  if (lane < outer4) {
    let z = quad_add(Quad(r0, r1, r2, r3, r4, r5, r6, r7), w_out[4u * stride4 * outer4 + lane]);
    for (var r = 0u; r < TILE_ROWS; r++) {
      if (row + r < shape.slab_rows) {
        store_y(y_base(row + r), lane, quad_row(z, r));
      }
    }
  }
}
