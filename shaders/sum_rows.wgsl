// Sums of rows, in blocks: over the tokens of each batch row, or over the batch rows of each token.
//
//   y[o, block] = Σ_(i of the block) x[o, i]
//
//   x   `width` elements from x_at + o·outer_step + i·row_step on, i < count
//   y   [outers, blocks, width]
//
// One invocation owns one number of one block; a second dispatch adds the blocks up. Cost: reads outers·count·width, writes outers·blocks·width.

struct Shape {
  width: u32,
  count: u32,
  blocks: u32,
  block_rows: u32,
  x_at: u32,
  outer_step: u32,
  row_step: u32,
  size: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  if (index >= shape.size) {
    return;
  }
  let c = index % shape.width;
  let block = index / shape.width % shape.blocks;
  let outer = index / shape.width / shape.blocks;
  let start = block * shape.block_rows;
  let end = min(start + shape.block_rows, shape.count);
  let at = shape.x_at + outer * shape.outer_step + c;
  var sum = 0.0;
  for (var i = start; i < end; i++) {
    sum += x[at + i * shape.row_step];
  }
  y[index] = sum;
}
