// Block sums -> sums of whole segments, added to what earlier dispatches left; the last one divides by the number of tokens.
//
//   moments[s] = (moments[s] + Σ_(groups of GROUP blocks) Σ_(blocks of the group) partial[block]) / divisor[s]
//
//   partial  [blocks, k·E]       table: number of each segment's first block, from ragged_offset on (read when ragged)
//   divisors [segments]          token counts, with the 1e-7 of a masked mean where the formula has it (read when has_divisors)
//   moments  [segments, k·E]
//
// One invocation owns 4 channels of one segment. Two levels of sums keep the error of a million tokens near 1e-7, where a plain
// running sum loses 1.3e-5 and a compensated one is undone by compilers that reassociate. The order is fixed: same bits every time.
// Cost: reads blocks·k·E, writes segments·k·E.

struct Shape {
  segments: u32,
  stride4: u32,
  blocks_per_segment: u32,
  ragged: u32,
  ragged_offset: u32,
  first_block: u32,
  accumulate: u32,
  divide: u32,
  has_divisors: u32,
  first_segment: u32,
  divisor: f32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> partial: array<vec4f>;
@group(0) @binding(2) var<storage, read> table: array<u32>;
@group(0) @binding(3) var<storage, read> divisors: array<f32>;
@group(0) @binding(4) var<storage, read_write> moments: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let stride4 = shape.stride4;
  let channel = index % stride4;
  let segment = index / stride4;
  if (segment >= shape.segments) {
    return;
  }
  var block = segment * shape.blocks_per_segment;
  var end = block + shape.blocks_per_segment;
  if (shape.ragged != 0u) {
    block = table[shape.ragged_offset + segment] - shape.first_block;
    end = table[shape.ragged_offset + segment + 1u] - shape.first_block;
  }
  var total = vec4f();
  if (shape.accumulate != 0u) {
    total = moments[index];
  }
  while (block < end) {
    let group_end = min(block + GROUP, end);
    var sum = vec4f();
    for (; block < group_end; block++) {
      sum += partial[block * stride4 + channel];
    }
    total += sum;
  }
  if (shape.divide != 0u) {
    var divisor = shape.divisor;
    if (shape.has_divisors != 0u) {
      divisor = divisors[shape.first_segment + segment];
    }
    total /= divisor;
  }
  moments[index] = total;
}
