// The algebra of states: merge, subtract and scale are linear in the sums.
//
//   levels <- keep · levels + add · other,   elementwise
//
//   levels, other [LEVELS, batch, k·E]  (other read when has_other)
//
// One invocation owns 4 channels of one level. Cost: reads two states, writes one.

struct Shape {
  size4: u32,
  has_other: u32,
  keep: f32,
  add: f32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> other: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> levels: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  if (index >= shape.size4) {
    return;
  }
  var sum = shape.keep * levels[index];
  if (shape.has_other != 0u) {
    sum += shape.add * other[index];
  }
  levels[index] = sum;
}
