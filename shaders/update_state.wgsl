// Block sums of an appended chunk -> the state's sum.
//
//   sum[b] += Σ_(groups of GROUP blocks) Σ_(blocks of the group) partial[block]
//
//   partial [blocks, k·E]      table: number of each segment's first block, from ragged_offset on (read when ragged)
//   entry   see state_levels.wgsl      levels [LEVELS, batch, k·E]
//
// One invocation owns 4 channels of one batch row. Cost: reads blocks·k·E, reads and writes the state's sum.
// Uses state_levels.

struct Shape {
  segments: u32,
  stride4: u32,
  blocks_per_segment: u32,
  ragged: u32,
  ragged_offset: u32,
  first_block: u32,
  first_segment: u32,
  batch: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> partial: array<vec4f>;
@group(0) @binding(2) var<storage, read> table: array<u32>;
@group(0) @binding(3) var<storage, read> entry: array<u32>;
@group(0) @binding(4) var<storage, read_write> levels: array<vec4f>;

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
  while (block < end) {
    let group_end = min(block + GROUP, end);
    var sum = vec4f();
    for (; block < group_end; block++) {
      sum += partial[block * stride4 + channel];
    }
    total += sum;
  }
  add_to_levels((shape.first_segment + segment) * stride4 + channel, shape.batch * stride4, entry[0], total);
}
