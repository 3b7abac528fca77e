// Cross-entropy of rows of logits, and its gradient in their place.
//
//   losses[r] = weight · (log Σ_i exp(logits[r, i]) - logits[r, target_r])
//   logits[r, i] ← weight · (exp(logits[r, i]) / Σ_j exp(logits[r, j]) - [i = target_r])      (where gradient)
//
//   logits   [rows, 4·stride4], of which the first V columns count; the gradient of the others is 0
//   targets  [rows]: a target of V or more leaves its row out, with loss and gradient 0
//   weight   [1]: of a row's loss in the total, for a mean 1 / rows      losses [rows]
//
// LANES invocations own a row. The largest logit is subtracted first, so that nothing overflows; it and the sum are found in one walk, a lane's
// sum scaled down whenever its maximum grows. Cost: reads 2·rows·V, writes rows·V; without the gradient reads rows·V.

struct Shape {
  rows: u32,
  vocabulary: u32,
  stride4: u32,
  gradient: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> logits: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> losses: array<f32>;

const LOWEST: f32 = -3.4028234e38;

var<workgroup> sh_softmax: array<vec2f, WORKGROUP_SIZE>;

// exp(v - maximum), 0 long before the difference overflows.
fn shifted(v: vec4f, maximum: f32) -> vec4f {
  return exp(max(v - maximum, vec4f(-100.0)));
}

// Logits 4 i to 4 i + 3 of a row; what is beyond the vocabulary counts as exp(-inf).
fn load_logits(base: u32, i: u32) -> vec4f {
  let v = logits[base + i];
  return select(vec4f(LOWEST), v, 4u * i + vec4u(0u, 1u, 2u, 3u) < vec4u(shape.vocabulary));
}

// A maximum and the sum of exp(logit - maximum) below it.
fn merge_softmax(a: vec2f, b: vec2f) -> vec2f {
  let maximum = max(a.x, b.x);
  let e = shifted(vec4f(a.x, b.x, maximum, maximum), maximum);
  return vec2f(maximum, a.y * e.x + b.y * e.y);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32, @builtin(num_workgroups) grid: vec3u) {
  let lane = local % LANES;
  let row = (group.x + group.y * grid.x) * (WORKGROUP_SIZE / LANES) + local / LANES;
  let base = row * shape.stride4;
  var columns4 = (shape.vocabulary + 3u) / 4u;
  if (row >= shape.rows) {
    columns4 = 0u;
  }

  var own = vec2f(LOWEST, 0.0);
  for (var i = lane; i < columns4; i += LANES) {
    let v = load_logits(base, i);
    let largest = max(max(v.x, v.y), max(v.z, v.w));
    if (largest > own.x) {
      own = vec2f(largest, own.y * shifted(vec4f(own.x), largest).x);
    }
    own.y += dot(shifted(v, own.x), vec4f(1.0));
  }

  // Eight lanes each, then the eighths: a fixed order.
  sh_softmax[local] = own;
  workgroupBarrier();
  if (local % 8u == 0u) {
    for (var i = 1u; i < 8u; i++) {
      own = merge_softmax(own, sh_softmax[local + i]);
    }
    sh_softmax[local] = own;
  }
  workgroupBarrier();
  if (row >= shape.rows) {
    return;
  }
  let first = local - lane;
  var total = sh_softmax[first];
  for (var i = 8u; i < LANES; i += 8u) {
    total = merge_softmax(total, sh_softmax[first + i]);
  }

  let label = targets[row];
  let counts = label < shape.vocabulary;
  // Read before any lane writes gradients over it.
  var loss = 0.0;
  if (counts && lane == label / 4u % LANES) {
    loss = weight[0] * (log(total.y) + (total.x - logits[base + label / 4u][label % 4u]));
  }
  if (shape.gradient != 0u) {
    let scale = weight[0] / total.y;
    for (var i = lane; i < shape.stride4; i += LANES) {
      var d = vec4f();
      if (counts && 4u * i < shape.vocabulary) {
        let index = 4u * i + vec4u(0u, 1u, 2u, 3u);
        d = select(vec4f(), scale * shifted(load_logits(base, i), total.x), index < vec4u(shape.vocabulary));
        d -= select(vec4f(), vec4f(weight[0]), index == vec4u(label));
      }
      logits[base + i] = d;
    }
  }
  if (counts && lane == label / 4u % LANES) {
    losses[row] = loss;
  } else if (!counts && lane == 0u) {
    losses[row] = 0.0;
  }
}
