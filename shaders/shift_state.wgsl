// Moves everything a state has seen by some positions: moments turned by their tokens' positions add up to sums that one more rotation turns together.
//
//   first <- first cos - second sin,   second <- second cos + first sin,   for the two chunks of channels of each plane, in place
//
//   levels  [LEVELS·batch, k·E]      turns [k / 2, 2, E]: cosines and sines of the shift in each plane
//
// One invocation owns 4 channels of both chunks. Cost: reads and writes a state; 6 FLOPs for two numbers.

struct Shape {
  rows: u32,
  planes: u32,
  expand4: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> turns: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> levels: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let expand4 = shape.expand4;
  let pair = index / expand4;
  if (pair >= shape.rows * shape.planes) {
    return;
  }
  let channel = index % expand4;
  let turn = 2u * (pair % shape.planes) * expand4 + channel;
  let cosine = turns[turn];
  let sine = turns[turn + expand4];
  let at = 2u * pair * expand4 + channel;
  let first = levels[at];
  let second = levels[at + expand4];
  levels[at] = first * cosine - second * sine;
  levels[at + expand4] = second * cosine + first * sine;
}
