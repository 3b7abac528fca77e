// Packed weights, or their gradients -> the layout of a checkpoint: transposed, and without what fills up channels to a multiple of 4.
//
//   weight[o, i] = packed[row of i, column of o],   bias[o] = packed[last row, column of o]
//
//   packed [inner padded + 1, stride]     channels: counts of `width`, `padded` apart, see src/layers/params.ts
//   weight, from weight_first on: [outer, inner], of channels from first_outer and first_inner on
//   bias   [all outer channels] (written when has_bias)
//
// One invocation owns one number. Cost: reads and writes outer·(inner + 1).

struct Shape {
  outer: u32,
  first_outer: u32,
  outer_width: u32,
  outer_padded: u32,
  first_column: u32,
  inner: u32,
  first_inner: u32,
  inner_width: u32,
  inner_padded: u32,
  bias_row: u32,
  stride: u32,
  has_bias: u32,
  weight_first: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> packed: array<f32>;
@group(0) @binding(2) var<storage, read_write> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;

fn column_of(o: u32) -> u32 {
  return shape.first_column + o / shape.outer_width * shape.outer_padded + o % shape.outer_width;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let size = shape.outer * shape.inner;
  if (index < size) {
    let i = shape.first_inner + index % shape.inner;
    let row = i / shape.inner_width * shape.inner_padded + i % shape.inner_width;
    weight[shape.weight_first + index] = packed[row * shape.stride + column_of(shape.first_outer + index / shape.inner)];
  } else if (shape.has_bias != 0u && index - size < shape.outer) {
    let o = shape.first_outer + index - size;
    bias[o] = packed[shape.bias_row * shape.stride + column_of(o)];
  }
}
