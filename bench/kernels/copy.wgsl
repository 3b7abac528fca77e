// Copies y = x, VECTORS vec4f an invocation (appended), neighbouring lanes side by side.

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = (group.x + group.y * grid.x) * 64u * VECTORS + lane;
  for (var i = 0u; i < VECTORS; i++) {
    let at = first + i * 64u;
    if (at < arrayLength(&y)) {
      y[at] = x[at];
    }
  }
}
