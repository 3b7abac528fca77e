// The sum of a workgroup's values in a fixed order, for every invocation. All of them must call it, as often as it likes.

var<workgroup> sh_values: array<f32, WORKGROUP_SIZE>;

fn workgroup_sum(local: u32, value: f32) -> f32 {
  sh_values[local] = value;
  workgroupBarrier();
  if (local % 8u == 0u) {
    var sum = value;
    for (var i = 1u; i < 8u; i++) {
      sum += sh_values[local + i];
    }
    sh_values[local] = sum;
  }
  workgroupBarrier();
  var total = 0.0;
  for (var i = 0u; i < WORKGROUP_SIZE; i += 8u) {
    total += sh_values[i];
  }
  workgroupBarrier();
  return total;
}
