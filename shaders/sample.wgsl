// The next token from a row of logits, without leaving the GPU.
//
//   ids[b] = argmax_i  logits[b, i] / temperature - log E(seed, step, b, i),   over the top_k largest logits
//
// E are independent exponential numbers, so that this is a draw from the softmax (the Gumbel-max trick): no sum over the vocabulary, no
// normalisation. They come from a hash of a counter: no state, and the same tokens for the same seed. Temperature 0 takes the largest logit.
//
//   logits [batch, V]      entry: [0] step      ids [batch]
//
// One workgroup owns one batch row. The top-k threshold is found bit by bit, in an order-preserving integer form of the logits.
// Cost: reads V logits, 33·V with top_k.

struct Shape {
  vocabulary: u32,
  top_k: u32,
  seed: u32,
  temperature: f32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> entry: array<u32>;
@group(0) @binding(3) var<storage, read_write> ids: array<u32>;

var<workgroup> sh_score: array<f32, WORKGROUP_SIZE>;
var<workgroup> sh_index: array<u32, WORKGROUP_SIZE>;
var<workgroup> sh_count: atomic<u32>;

fn hash(value: u32) -> u32 {
  var x = value;
  x = (x ^ (x >> 16u)) * 0x7feb352du;
  x = (x ^ (x >> 15u)) * 0x846ca68bu;
  return x ^ (x >> 16u);
}

// -log(1 - v) for v in (0, 1) from 23 bits; the series keeps small values exact, where log near 1 has no digits.
fn exponential(step: u32, row: u32, index: u32) -> f32 {
  let bits = hash(hash(hash(hash(shape.seed) + step) + row) + index);
  let v = (f32(bits >> 9u) + 0.5) / 8388608.0;
  if (v < 0.0625) {
    return v * (1.0 + v * (0.5 + v * (0.33333334 + v * (0.25 + v * (0.2 + v * 0.16666667)))));
  }
  return -log(1.0 - v);
}

// Larger floats have larger keys.
fn order_key(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  if ((bits >> 31u) != 0u) {
    return ~bits;
  }
  return bits | 0x80000000u;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = group.x;
  let size = shape.vocabulary;
  let base = row * size;
  var threshold = 0u;
  if (shape.top_k < size) {
    // The largest key that at least top_k logits reach.
    for (var bit = 32u; bit > 0u; bit--) {
      let candidate = threshold | (1u << (bit - 1u));
      if (local == 0u) {
        atomicStore(&sh_count, 0u);
      }
      workgroupBarrier();
      var count = 0u;
      for (var i = local; i < size; i += WORKGROUP_SIZE) {
        count += u32(order_key(logits[base + i]) >= candidate);
      }
      atomicAdd(&sh_count, count);
      workgroupBarrier();
      let reached = atomicLoad(&sh_count);
      workgroupBarrier();
      if (reached >= shape.top_k) {
        threshold = candidate;
      }
    }
  }
  var best = 0.0;
  var best_index = 0xffffffffu;
  for (var i = local; i < size; i += WORKGROUP_SIZE) {
    let logit = logits[base + i];
    if (order_key(logit) >= threshold) {
      var score = logit;
      if (shape.temperature > 0.0) {
        score = logit / shape.temperature - log(exponential(entry[0], row, i));
      }
      if (best_index == 0xffffffffu || score > best) {
        best = score;
        best_index = i;
      }
    }
  }
  sh_score[local] = best;
  sh_index[local] = best_index;
  workgroupBarrier();
  if (local == 0u) {
    for (var i = 1u; i < WORKGROUP_SIZE; i++) {
      let index = sh_index[i];
      let better = best_index == 0xffffffffu || sh_score[i] > best || (sh_score[i] == best && index < best_index);
      if (index != 0xffffffffu && better) {
        best = sh_score[i];
        best_index = index;
      }
    }
    ids[row] = best_index;
  }
}
