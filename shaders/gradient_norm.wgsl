// Squares of a stretch of all gradients, added up, and whether they are all finite.
//
//   partial[group] = (Σ over the group's stretch of g², 1 where a g is not finite and 0 elsewhere)
//
//   gradients [count4] vec4s, as bits      partial [groups of every dispatch]
//
// A workgroup owns steps · 64 vec4s; an invocation adds every 64th of them. Infinity and NaN are found by their bits. Cost: reads the gradients.
// Uses workgroup_sum.

struct Shape {
  count4: u32,
  steps: u32,
  groups: u32,
  first_group: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> gradients: array<vec4u>;
@group(0) @binding(2) var<storage, read_write> partial: array<vec2f>;

const EXPONENT: vec4u = vec4u(0x7f800000u);

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) local: u32, @builtin(num_workgroups) grid: vec3u) {
  let group = id.x + id.y * grid.x;
  var squares = vec4f();
  var bad = 0.0;
  var i = group * shape.steps * WORKGROUP_SIZE + local;
  for (var step = 0u; step < shape.steps && i < shape.count4; step++) {
    let bits = gradients[i];
    if (any((bits & EXPONENT) == EXPONENT)) {
      bad = 1.0;
    }
    let g = bitcast<vec4f>(bits);
    squares += g * g;
    i += WORKGROUP_SIZE;
  }
  let sum = workgroup_sum(local, (squares.x + squares.y) + (squares.z + squares.w));
  let n_bad = workgroup_sum(local, bad);
  if (local == 0u && group < shape.groups) {
    partial[shape.first_group + group] = vec2f(sum, n_bad);
  }
}
