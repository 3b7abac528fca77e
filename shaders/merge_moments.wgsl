// Block sums -> sums of whole segments, added to what earlier dispatches left; the last one divides by the number of tokens.
//
//   moments[s] = (moments[s] + Σ_(groups of GROUP blocks) Σ_(blocks of the group) partial[block]) / divisor[s]
//
//   partial  [blocks, k·E]       table: number of each segment's first block, from ragged_offset on (read when ragged)
//   divisors [segments]          token counts, with the 1e-7 of a masked mean where the formula has it (read when has_divisors)
//   moments  [segments, k·E]
//
// A workgroup owns WORKGROUP_SIZE / LANES · 4 channels of one segment: each of LANES lanes sums a group of blocks for 4 channels, then one lane adds the groups in their order.
// Two levels of sums keep the error of a million tokens near 1e-7, where a plain running sum loses 1.3e-5 and a compensated one is undone by
// compilers that reassociate. The order is fixed: same bits every time.
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

const CHANNELS: u32 = WORKGROUP_SIZE / LANES;

// [group, 4 channels]
var<workgroup> sh_sum: array<vec4f, WORKGROUP_SIZE>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) lane: u32) {
  let stride4 = shape.stride4;
  let columns = (stride4 + CHANNELS - 1u) / CHANNELS;
  let index = group.x + group.y * grid.x;
  let segment = index / columns;
  if (segment >= shape.segments) {
    return;
  }
  let channel = index % columns * CHANNELS + lane % CHANNELS;
  var first = segment * shape.blocks_per_segment;
  var end = first + shape.blocks_per_segment;
  if (shape.ragged != 0u) {
    first = table[shape.ragged_offset + segment] - shape.first_block;
    end = table[shape.ragged_offset + segment + 1u] - shape.first_block;
  }
  let owner = lane < CHANNELS && channel < stride4;
  let at = segment * stride4 + channel;
  var total = vec4f();
  if (owner && shape.accumulate != 0u) {
    total = moments[at];
  }
  for (; first < end; first += LANES * GROUP) {
    var block = first + lane / CHANNELS * GROUP;
    let group_end = min(block + GROUP, end);
    var sum = vec4f();
    if (channel < stride4) {
      for (; block < group_end; block++) {
        sum += partial[block * stride4 + channel];
      }
    }
    sh_sum[lane] = sum;
    workgroupBarrier();
    if (owner) {
      let groups = min((end - first + GROUP - 1u) / GROUP, LANES);
      for (var i = 0u; i < groups; i++) {
        total += sh_sum[i * CHANNELS + lane];
      }
    }
    workgroupBarrier();
  }
  if (!owner) {
    return;
  }
  if (shape.divide != 0u) {
    var divisor = shape.divisor;
    if (shape.has_divisors != 0u) {
      divisor = divisors[shape.first_segment + segment];
    }
    total /= divisor;
  }
  moments[at] = total;
}
