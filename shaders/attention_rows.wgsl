// What the backward pass of softmax attention knows of a query and head: the scores' softmax again, and where its derivative is 0.
//
//   rows[t] = (largest score, 1 / sum, dy_t·y_t)
//
//   y         [queries, H·d]
//   gradients [queries, H·d]                   dy, of y
//   stats     [queries, H, column groups] of (largest score, sum), as `attention` leaves them
//   rows      [queries, H, 3]
//
// An invocation owns a query and head. Cost: reads 2·T·H·d.

struct Shape {
  heads: u32,
  head4: u32,
  column_groups: u32,
  queries: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> y: array<vec4f>;
@group(0) @binding(2) var<storage, read> gradients: array<vec4f>;
@group(0) @binding(3) var<storage, read> stats: array<vec2f>;
@group(0) @binding(4) var<storage, read_write> rows: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  if (index >= shape.queries * shape.heads) {
    return;
  }
  var at = index * shape.head4;
  var sum = vec4f();
  for (var i = 0u; i < shape.head4; i++) {
    sum = fma(gradients[at], y[at], sum);
    at++;
  }
  let softmax = stats[index * shape.column_groups];
  rows[3u * index] = softmax.x;
  rows[3u * index + 1u] = 1.0 / softmax.y;
  rows[3u * index + 2u] = (sum.x + sum.y) + (sum.z + sum.w);
}
