// The losses of all rows, added up in a fixed order.
//
//   status.loss (+)= Σ_r losses[r]
//
//   losses [rows]      status: see status.wgsl
//
// One workgroup; a lane adds every 64th row, in groups of GROUP. Cost: reads rows.
// Uses workgroup_sum, status.

struct Shape {
  rows: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> losses: array<f32>;
@group(0) @binding(2) var<storage, read_write> status: Status;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(local_invocation_index) local: u32) {
  var total = 0.0;
  for (var first = local; first < shape.rows; first += GROUP * WORKGROUP_SIZE) {
    let end = min(first + GROUP * WORKGROUP_SIZE, shape.rows);
    var sum = 0.0;
    for (var row = first; row < end; row += WORKGROUP_SIZE) {
      sum += losses[row];
    }
    total += sum;
  }
  let all = workgroup_sum(local, total);
  if (local == 0u) {
    if (shape.accumulate != 0u) {
      status.loss += all;
    } else {
      status.loss = all;
    }
  }
}
