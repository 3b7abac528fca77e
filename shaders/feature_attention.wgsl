// Reads linear attention: the mean of the values, weighted by dot products of features.
//
//   y_t = (φ(q_t) S + Σ_s a[t, s] v_s) / (φ(q_t)·z + Σ_s a[t, s])
//
// S and z are sums over all tokens, or with `causal` over those before t's block; a is what t sees of its own block. A denominator nearer to 0 than
// DENOMINATOR_MIN is moved there with its sign: features that have underflown give 0.
//
//   phi     [batch rows, queries, H, features4]    features of the queries
//   sums    [batch rows, blocks, S then z]         as in feature_sums.wgsl; one block a batch row, or with `causal` one for every block of tokens
//   scores  [batch rows, queries, H, block_tokens / 4]
//   v       [batch rows, queries, ...]             H heads of head4 vec4s from v_offset4 on, rows v_stride4 apart; read with `causal`, like scores
//   y       [batch rows, queries, H·head4]
//
// One invocation owns 8 queries x 8 channels of one head. Cost for T queries: 2·T·H·R·(d + 1) FLOPs, and T·block_tokens·H·d with `causal`.
// Uses eight_rows.

struct Shape {
  heads: u32,
  head4: u32,
  features4: u32,
  batch_rows: u32,
  queries: u32,
  blocks: u32,
  block_tokens: u32,
  causal: u32,
  v_offset4: u32,
  v_stride4: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> phi: array<vec4f>;
@group(0) @binding(2) var<storage, read> sums: array<vec4f>;
@group(0) @binding(3) var<storage, read> scores: array<vec4f>;
@group(0) @binding(4) var<storage, read> v: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4f>;

const DENOMINATOR_MIN: f32 = 1e-30;

fn load_phi(rows: EightRows, k: u32) -> Eight {
  return Eight(
    phi[rows.upper.x + k],
    phi[rows.upper.y + k],
    phi[rows.upper.z + k],
    phi[rows.upper.w + k],
    phi[rows.lower.x + k],
    phi[rows.lower.y + k],
    phi[rows.lower.z + k],
    phi[rows.lower.w + k],
  );
}

fn load_scores(rows: EightRows, k: u32) -> Eight {
  return Eight(
    scores[rows.upper.x + k],
    scores[rows.upper.y + k],
    scores[rows.upper.z + k],
    scores[rows.upper.w + k],
    scores[rows.lower.x + k],
    scores[rows.lower.y + k],
    scores[rows.lower.z + k],
    scores[rows.lower.w + k],
  );
}

fn guarded(denominator: f32) -> f32 {
  if (abs(denominator) >= DENOMINATOR_MIN) {
    return denominator;
  }
  return select(DENOMINATOR_MIN, -DENOMINATOR_MIN, denominator < 0.0);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  var index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let heads = shape.heads;
  let head4 = shape.head4;
  let features4 = shape.features4;
  let queries = shape.queries;
  let cols = (head4 + 1u) / 2u;
  let col = index % cols * 2u;
  index /= cols;
  let head = index % heads;
  index /= heads;
  let tiles = (queries + 7u) / 8u;
  let row = index % tiles * 8u;
  let batch_row = index / tiles;
  if (batch_row >= shape.batch_rows) {
    return;
  }
  let next = min(col + 1u, head4 - 1u);
  let stride4 = heads * head4;
  let last = queries - 1u;
  var block = batch_row * shape.blocks;
  if (shape.causal != 0u) {
    block += row / shape.block_tokens;
  }
  let base = block * (4u * features4 * stride4 + heads * features4);
  let z_base = base + 4u * features4 * stride4 + head * features4;
  let phi_rows = eight_rows((batch_row * queries * heads + head) * features4, row, last, heads * features4);
  var a = Eight();
  var b = Eight();
  var denominators = EightSums();
  var i = base + head * head4;
  for (var k = 0u; k < features4; k++) {
    let p = load_phi(phi_rows, k);
    a = eight_add_product(a, p, mat4x4f(sums[i + col], sums[i + stride4 + col], sums[i + 2u * stride4 + col], sums[i + 3u * stride4 + col]));
    b = eight_add_product(b, p, mat4x4f(sums[i + next], sums[i + stride4 + next], sums[i + 2u * stride4 + next], sums[i + 3u * stride4 + next]));
    denominators = eight_add_dots(denominators, p, eight_of(sums[z_base + k]));
    i += 4u * stride4;
  }
  if (shape.causal != 0u) {
    let keys4 = shape.block_tokens / 4u;
    let within = row % shape.block_tokens;
    let score_rows = eight_rows((batch_row * queries * heads + head) * keys4, row, last, heads * keys4);
    let v_base = shape.v_offset4 + batch_row * queries * shape.v_stride4 + head * head4;
    for (var k = 0u; k < (within + 8u) / 4u; k++) {
      let key = row - within + 4u * k;
      // Scores of tokens past the last are 0, their values nothing.
      let at = v_base + min(vec4u(key, key + 1u, key + 2u, key + 3u), vec4u(last)) * shape.v_stride4;
      let p = load_scores(score_rows, k);
      a = eight_add_product(a, p, mat4x4f(v[at.x + col], v[at.y + col], v[at.z + col], v[at.w + col]));
      b = eight_add_product(b, p, mat4x4f(v[at.x + next], v[at.y + next], v[at.z + next], v[at.w + next]));
      denominators = eight_add_dots(denominators, p, eight_of(vec4f(1.0)));
    }
  }
  for (var r = 0u; r < min(8u, queries - row); r++) {
    let at = (batch_row * queries + row + r) * stride4 + head * head4;
    let denominator = guarded(eight_sum(denominators, r));
    y[at + col] = eight_row(a, r) / denominator;
    if (col + 1u < head4) {
      y[at + col + 1u] = eight_row(b, r) / denominator;
    }
  }
}
