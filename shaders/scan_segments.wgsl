// Block-causal means: segment s of a batch row sees the tokens of segments 0 ... s.
//
//   moments[row, s] <- Σ_(s' <= s) moments[row, s'] / min((s + 1)·segment_length, row_tokens),   in place
//
//   moments [batch rows, segments, k·E]     sums of the segments in, means out
//   running [batch rows, 2, k·E]            sum of whole groups of GROUP segments, sum inside the current group
//
// One invocation owns 4 channels of one batch row. Cost: reads and writes segments·k·E.

struct Shape {
  batch_rows: u32,
  stride4: u32,
  segments: u32,
  first_segment: u32,
  segment_length: u32,
  row_tokens: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read_write> moments: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> running: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let stride4 = shape.stride4;
  let channel = index % stride4;
  let batch_row = index / stride4;
  if (batch_row >= shape.batch_rows) {
    return;
  }
  let state = batch_row * 2u * stride4 + channel;
  var base = vec4f();
  var sum = vec4f();
  if (shape.accumulate != 0u) {
    base = running[state];
    sum = running[state + stride4];
  }
  for (var segment = 0u; segment < shape.segments; segment++) {
    let number = shape.first_segment + segment;
    if (number % GROUP == 0u) {
      base += sum;
      sum = vec4f();
    }
    let i = (batch_row * shape.segments + segment) * stride4 + channel;
    sum += moments[i];
    let seen = min((number + 1u) * shape.segment_length, shape.row_tokens);
    moments[i] = (base + sum) / f32(seen);
  }
  running[state] = base;
  running[state + stride4] = sum;
}
