// Scores of linear attention within a block of tokens, for the causal form: what came before the block is in sums.
//
//   a[t, s] = φ(q_t)·φ(k_s) for the tokens s of t's block up to t itself, or with `later` from t on; 0 for the others of the 8 x 4 tiles that are written
//
//   phi_q, phi_k  [batch rows, tokens, H, features4]
//   scores        [batch rows, tokens, H, block_tokens / 4]    tiles without a pair that sees are neither written nor read
//
// One invocation owns 8 queries x 4 keys of one head. Cost for n tokens: n·block_tokens·H·R FLOPs, reads the features block_tokens / 8 times.
// Uses eight_rows.

struct Shape {
  heads: u32,
  features4: u32,
  batch_rows: u32,
  tokens: u32,
  block_tokens: u32,
  later: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> phi_q: array<vec4f>;
@group(0) @binding(2) var<storage, read> phi_k: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> scores: array<vec4f>;

fn load_q(rows: EightRows, k: u32) -> Eight {
  return Eight(
    phi_q[rows.upper.x + k],
    phi_q[rows.upper.y + k],
    phi_q[rows.upper.z + k],
    phi_q[rows.upper.w + k],
    phi_q[rows.lower.x + k],
    phi_q[rows.lower.y + k],
    phi_q[rows.lower.z + k],
    phi_q[rows.lower.w + k],
  );
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  var index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let heads = shape.heads;
  let features4 = shape.features4;
  let tokens = shape.tokens;
  let keys4 = shape.block_tokens / 4u;
  let col = index % keys4;
  index /= keys4;
  let head = index % heads;
  index /= heads;
  let tiles = (tokens + 7u) / 8u;
  let row = index % tiles * 8u;
  let batch_row = index / tiles;
  let within = row % shape.block_tokens;
  let is_later = shape.later != 0u;
  if (batch_row >= shape.batch_rows || select(4u * col > within + 7u, 4u * col + 3u < within, is_later)) {
    return;
  }
  let stride4 = heads * features4;
  let base = batch_row * tokens * stride4 + head * features4;
  let last = tokens - 1u;
  let rows = eight_rows(base, row, last, stride4);
  let key = row - within + 4u * col;
  let keys = base + min(vec4u(key, key + 1u, key + 2u, key + 3u), vec4u(last)) * stride4;
  var z = Eight();
  for (var k = 0u; k < features4; k++) {
    let m = mat4x4f(phi_k[keys.x + k], phi_k[keys.y + k], phi_k[keys.z + k], phi_k[keys.w + k]);
    z = eight_add_product(z, load_q(rows, k), transpose(m));
  }
  for (var r = 0u; r < min(8u, tokens - row); r++) {
    let column = vec4u(key, key + 1u, key + 2u, key + 3u);
    var seen = column <= vec4u(row + r);
    if (is_later) {
      seen = (column >= vec4u(row + r)) & (column <= vec4u(last));
    }
    scores[((batch_row * tokens + row + r) * heads + head) * keys4 + col] = select(vec4f(), eight_row(z, r), seen);
  }
}
