// What the optimiser needs to know before it touches a weight: the norm of all gradients, the factor that clips it, and whether all is finite.
//
//   norm = sqrt(Σ partial),   scale = min(1, clip / (norm + 1e-6)),   halted ← halted or not finite
//
//   partial [groups]: see gradient_norm      settings: see settings.wgsl      status: see status.wgsl; loss is read
//
// One workgroup; an invocation adds every 64th partial sum. A norm that overflows counts as not finite. Cost: reads groups.
// Uses workgroup_sum, status, settings.

struct Shape {
  groups: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> partial: array<vec2f>;
@group(0) @binding(2) var<storage, read> settings: Settings;
@group(0) @binding(3) var<storage, read_write> status: Status;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(local_invocation_index) local: u32) {
  var own = vec2f();
  for (var i = local; i < shape.groups; i += WORKGROUP_SIZE) {
    own += partial[i];
  }
  let squares = workgroup_sum(local, own.x);
  let n_bad = workgroup_sum(local, own.y);
  if (local == 0u) {
    let norm = sqrt(squares);
    status.norm = norm;
    status.scale = 1.0;
    if (settings.clip > 0.0) {
      status.scale = min(1.0, settings.clip / (norm + 1e-6));
    }
    if (n_bad == 0.0 && is_finite(squares) && is_finite(status.loss)) {
      status.finite = 1u;
    } else {
      status.finite = 0u;
      status.halted = 1u;
    }
  }
}
