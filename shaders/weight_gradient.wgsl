// Gradient of a dense layer's weight and bias: outer products of input and gradient rows, added up over a block of rows.
//
//   out[block, i, o] (+)= Σ over the rows of the block of [x, 1][row, i] · dy[row, o]
//
//   x   [rows, inner]              dy [rows, outer]
//   out [blocks, inner + 1, outer] sums of blocks, which merge_gradients adds up; or, with one block, the gradient itself: columns out_first4
//                                  on of [inner + 1, 4·out_stride4], in the layout of the packed weights. Their padding becomes 0.
//
// One invocation owns a tile of inputs x outputs of one block, or 4 outputs of its bias. After STRETCH rows it adds its sums to what it has
// stored: short sums keep the error small. Cost: reads rows·(inner + outer), writes blocks·inner·outer; 2·rows·inner·outer FLOPs.
// Uses outer, load_x, load_dy.
//
// The bias has invocations of its own: as one more input of a tile it would be 1/8 more work at 64 inputs.

struct Shape {
  inner: u32,
  inner4: u32,
  x_offset: u32,
  x_stride: u32,
  x_span: u32,
  x_pitch: u32,
  outer: u32,
  outer4: u32,
  dy_offset: u32,
  dy_stride: u32,
  dy_span: u32,
  dy_pitch: u32,
  first_row: u32,
  end_row: u32,
  block_rows: u32,
  blocks: u32,
  has_bias: u32,
  accumulate: u32,
  out_stride4: u32,
  out_first4: u32,
  out_block4: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<XElement>;
@group(0) @binding(2) var<storage, read> dy: array<DyElement>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4f>;

const STRETCH: u32 = 512u;

// Where the spans of x and dy that hold this row end: up to there rows follow each other in equal distances.
fn run_end(row: u32, end: u32) -> u32 {
  return min(end, row + min(shape.x_span - row % shape.x_span, shape.dy_span - row % shape.dy_span));
}

fn sum_rows(start: u32, end: u32, col: u32) -> vec4f {
  var sum = vec4f();
  var row = start;
  while (row < end) {
    var q = dy_base(row);
    let stop = run_end(row, end);
    for (; row < stop; row++) {
      sum += load_dy(q, col);
      q += shape.dy_stride;
    }
  }
  return sum;
}

fn store(index: u32, value: vec4f, add: bool) {
  if (add) {
    out[index] += value;
  } else {
    out[index] = value;
  }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let tile_cols = (shape.outer4 + TILE_COLS4 - 1u) / TILE_COLS4;
  let tiles = tile_cols * ((shape.inner4 + TILE_ROWS4 - 1u) / TILE_ROWS4);
  let block_size = tiles + shape.has_bias * shape.outer4;
  let block = index / block_size;
  if (block >= shape.blocks) {
    return;
  }
  let part = index % block_size;
  let base = block * shape.out_block4 + shape.out_first4;
  var start = shape.first_row + block * shape.block_rows;
  let block_end = min(start + shape.block_rows, shape.end_row);
  var add = shape.accumulate != 0u;
  if (part >= tiles) {
    let col = part - tiles;
    let bias = base + 4u * shape.inner4 * shape.out_stride4 + col;
    while (start < block_end) {
      let end = min(start + STRETCH, block_end);
      store(bias, sum_rows(start, end, col), add);
      add = true;
      start = end;
    }
    return;
  }
  let k = part / tile_cols * TILE_ROWS4;
  let col = part % tile_cols * TILE_COLS4;
  let n_rows = 4u * min(TILE_ROWS4, shape.inner4 - k);
  let n_cols = min(TILE_COLS4, shape.outer4 - col);
  while (start < block_end) {
    let end = min(start + STRETCH, block_end);
    let z = tile_outer(start, end, k, col);
    for (var r = 0u; r < n_rows; r++) {
      for (var c = 0u; c < n_cols; c++) {
        store(base + (4u * k + r) * shape.out_stride4 + col + c, tile_row(z, r, c), add);
      }
    }
    add = true;
    start = end;
  }
}
