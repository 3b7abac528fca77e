// Values with a one behind them, so that one product gives a weighted sum and the sum of its weights.
//
//   y[row, head] = [v[row, head], (1, 0, 0, 0)]
//
//   v  [rows, ...]               H heads of head4 vec4s from v_offset4 on, rows v_stride4 apart
//   y  [rows, H, head4 + 1]
//
// One invocation owns 4 channels of a row. Cost: reads rows·H·d, writes rows·H·(d + 4).

struct Shape {
  rows: u32,
  heads: u32,
  head4: u32,
  v_offset4: u32,
  v_stride4: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> v: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let width4 = shape.head4 + 1u;
  let col = index % width4;
  let head = index / width4 % shape.heads;
  let row = index / width4 / shape.heads;
  if (row >= shape.rows) {
    return;
  }
  if (col == shape.head4) {
    y[index] = vec4f(1.0, 0.0, 0.0, 0.0);
  } else {
    y[index] = v[shape.v_offset4 + row * shape.v_stride4 + head * shape.head4 + col];
  }
}
