// Backward of an activation, elementwise, with the activation itself computed anew: what the layer after it needs for its weights' gradient.
//
//   du = dh ⊙ act'(u),   h = act(u)
//
//   u          [count4] vec4s    in: pre-activations u; out: h, in place
//   gradients  [count4] vec4s    in: dh; out: du, in place
//
// One invocation owns 4 numbers. Cost: reads and writes 2 numbers each.
// Uses activations, activation_gradients.

struct Shape {
  count4: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read_write> u: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> gradients: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  if (index >= shape.count4) {
    return;
  }
  let v = u[index];
  gradients[index] *= activate_gradient(v);
  u[index] = activate(v);
}
