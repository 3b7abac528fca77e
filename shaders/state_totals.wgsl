// A state's sum, or its mean over the tokens seen.
//
//   moments[b] = Σ_levels levels[level, b] / count_b
//
//   levels [LEVELS, batch, k·E]      entry[4 + b]: tokens seen (f32 bits; read when divide)      moments [batch, k·E]
//
// One invocation owns 4 channels of one batch row. Cost: reads LEVELS·B·k·E, writes B·k·E.

const LEVELS: u32 = 4u;

struct Shape {
  batch: u32,
  stride4: u32,
  divide: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> levels: array<vec4f>;
@group(0) @binding(2) var<storage, read> entry: array<u32>;
@group(0) @binding(3) var<storage, read_write> moments: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let plane = shape.batch * shape.stride4;
  if (index >= plane) {
    return;
  }
  var total = vec4f();
  for (var level = 0u; level < LEVELS; level++) {
    total += levels[index + level * plane];
  }
  if (shape.divide != 0u) {
    total /= bitcast<f32>(entry[4u + index / shape.stride4]);
  }
  moments[index] = total;
}
