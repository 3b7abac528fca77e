// One step of AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019) on a stretch of all weights.
//
//   g ← scale · g,   m ← m + (1 - β1)(g - m),   v ← v + (1 - β2)(g² - v)
//   w ← w - lr·λ·w - lr · m / (1 - β1^t) / (sqrt(v / (1 - β2^t)) + ε)
//
//   weights, gradients, first (m), second (v)  [count4] vec4s of one layout
//   decayed  one bit a vec4, from the first of all weights on: whether λ applies
//   settings: see settings.wgsl      status: see status.wgsl; nothing changes once it is halted
//
// One invocation owns 4 weights. Cost: reads 4 numbers a weight, writes 3.
// Uses status, settings.

struct Shape {
  count4: u32,
  first4: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> settings: Settings;
@group(0) @binding(2) var<storage, read> status: Status;
@group(0) @binding(3) var<storage, read> decayed: array<u32>;
@group(0) @binding(4) var<storage, read> gradients: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> weights: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> first: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> second: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  if (index >= shape.count4 || status.halted != 0u) {
    return;
  }
  let g = status.scale * gradients[index];
  let m = first[index] + settings.rate1 * (g - first[index]);
  let v = second[index] + settings.rate2 * (g * g - second[index]);
  first[index] = m;
  second[index] = v;
  let bit = shape.first4 + index;
  let decay = settings.decay * f32((decayed[bit / 32u] >> (bit % 32u)) & 1u);
  let change = settings.step_size * m / (sqrt(v) * settings.root_correction + settings.eps);
  weights[index] -= decay * weights[index] + change;
}
