// Block sums of weight_gradient -> the gradient, in groups of GROUP.
//
//   gradient[i, first + o] (+)= Σ over groups of Σ over the blocks of a group of partial[block, i, o]
//
//   partial   [blocks, rows, outer]      rows = inner + 1, or inner without a bias
//   gradient  [rows, 4·stride4]          columns from 4·first4 on
//
// One invocation owns 4 columns of a row. Cost: reads blocks·rows·outer, writes rows·outer.

struct Shape {
  rows: u32,
  outer4: u32,
  blocks: u32,
  stride4: u32,
  first4: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> partial: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> gradient: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let row = index / shape.outer4;
  if (row >= shape.rows) {
    return;
  }
  let to = row * shape.stride4 + shape.first4 + index % shape.outer4;
  var total = vec4f();
  if (shape.accumulate != 0u) {
    total = gradient[to];
  }
  let size = shape.rows * shape.outer4;
  var block = 0u;
  while (block < shape.blocks) {
    let group_end = min(block + GROUP, shape.blocks);
    var sum = vec4f();
    for (; block < group_end; block++) {
      sum += partial[block * size + index];
    }
    total += sum;
  }
  gradient[to] = total;
}
