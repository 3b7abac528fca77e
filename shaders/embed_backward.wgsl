// Gradient of a table whose rows were looked up: rows of the output's gradient, added up by the row that they came from.
//
//   gradient[key] (+)= Σ over the rows r with that key of x[r]
//
//   x         [rows, D]                 gradient of what was looked up
//   table     counts, items and order as written by packRowGroups: an item is a start, an end and a destination
//   partial   [blocks, D]               sums of BLOCK rows of keys that have more
//   gradient  [keys, D]                 rows that nothing adds to are left as they are
//
// First level: an item adds rows order[start] to order[end - 1] of x to a row of the gradient or, for a part of a frequent key, sets a row of
// partial. Second level: an item adds rows start to end - 1 of partial. One invocation owns one number of an item; the grid is made for the most
// items that there can be. Cost: reads rows·D, writes keys·D.

struct Shape {
  dim: u32,
  level: u32,
  items_at: u32,
  order_at: u32,
  x_offset: u32,
  x_stride: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> table: array<u32>;
@group(0) @binding(3) var<storage, read_write> partial: array<f32>;
@group(0) @binding(4) var<storage, read_write> gradient: array<f32>;

const TO_PARTIAL: u32 = 0x80000000u;

fn element(i: u32, channel: u32) -> f32 {
  if (shape.level == 0u) {
    return x[shape.x_offset + table[shape.order_at + i] * shape.x_stride + channel];
  }
  return partial[i * shape.dim + channel];
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let item = index / shape.dim;
  if (item >= table[shape.level]) {
    return;
  }
  let channel = index % shape.dim;
  let at = shape.items_at + 3u * item;
  let end = table[at + 1u];
  let key = table[at + 2u];
  var total = 0.0;
  var i = table[at];
  while (i < end) {
    let group_end = min(i + GROUP, end);
    var sum = 0.0;
    for (; i < group_end; i++) {
      sum += element(i, channel);
    }
    total += sum;
  }
  if ((key & TO_PARTIAL) != 0u) {
    partial[(key & ~TO_PARTIAL) * shape.dim + channel] = total;
  } else if (shape.accumulate != 0u) {
    gradient[key * shape.dim + channel] += total;
  } else {
    gradient[key * shape.dim + channel] = total;
  }
}
