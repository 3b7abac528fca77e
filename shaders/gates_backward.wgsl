// From the gradients of each channel's gate (apply_gates_backward.wgsl) to those of the gates' logits: summed over a head's channels, turned back by the
// query's position, times the slope of the hard sigmoid.
//
//   dlogit_t(g) = Σ_(channels of g) ds_t[c] / 6 where 0 < s_t(g) < 1, else 0;  turned, of sums of both chunks: d(g) cos ± d(g') sin
//
//   gates      [slab rows, gates_stride]      in: s before it is turned; out: dlogit, in place, and 0 in columns that are no gate's
//   constants, positions: see apply_gates.wgsl
//   gradients  [slab rows, gradients_stride]  ds from column gates_at on
//
// One invocation owns one gate of a row. Cost for T rows: reads T·k·E (turned: twice) and T gates, writes T gates; T·k·E FLOPs.
// Uses gate_of.

struct Shape {
  expand4: u32,
  slab_rows: u32,
  chunks: u32,
  gates_stride: u32,
  chunk_gates: u32,
  head_width: u32,
  planes: u32,
  column_step: u32,
  rotations: u32,
  first_batch_row: u32,
  first_query: u32,
  query_length: u32,
  slab_queries: u32,
  gradients_stride: u32,
  gates_at: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> constants: array<f32>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> gradients: array<f32>;
@group(0) @binding(4) var<storage, read_write> gates: array<f32>;

fn sum_of(row: u32, chunk: u32, j: u32) -> f32 {
  let first = row * shape.gradients_stride + shape.gates_at + 4u * shape.expand4 * chunk + j * shape.head_width;
  let end = first + shape.head_width;
  var sum = 0.0;
  var c = first;
  for (; c + 3u < end; c += 4u) {
    sum += (gradients[c] + gradients[c + 1u]) + (gradients[c + 2u] + gradients[c + 3u]);
  }
  for (; c < end; c++) {
    sum += gradients[c];
  }
  return sum;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let row = index / shape.gates_stride;
  if (row >= shape.slab_rows) {
    return;
  }
  let chunk = index % shape.gates_stride / shape.chunk_gates;
  let j = index % shape.gates_stride % shape.chunk_gates;
  let s = gates[index];
  var d = 0.0;
  if (chunk < shape.chunks && s > 0.0 && s < 1.0) {
    d = sum_of(row, chunk, j);
    if (shape.planes != 0u) {
      d = turned(d, sum_of(row, chunk ^ 1u, j), -1.0, chunk, j, turns_of(row, chunk));
    }
    d /= 6.0;
  }
  gates[index] = d;
}
