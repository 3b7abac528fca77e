// What linear attention keeps of a block of tokens: the sum of the outer products of features and values, and the sum of the features.
//
//   S[i, c] = Σ over the tokens of the block of φ(k)_i v_c,   z_i = Σ φ(k)_i
//
//   phi   [batch rows, tokens, H, features4]        features of the keys
//   v     [batch rows, tokens, ...]                 the values: H heads of head4 vec4s from v_offset4 on, rows v_stride4 apart
//   sums  [batch rows, blocks, S then z]            S [4·features4, H·head4], z [H, features4]
//
// One invocation owns 8 features x 8 channels of one head and one block. Cost for n tokens: 2·n·H·R·d FLOPs, reads n·H·(R + d), writes H·R·(d + 1) a block.
// Uses eight_rows.

struct Shape {
  heads: u32,
  head4: u32,
  features4: u32,
  batch_rows: u32,
  tokens: u32,
  blocks: u32,
  block_tokens: u32,
  v_offset4: u32,
  v_stride4: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> phi: array<vec4f>;
@group(0) @binding(2) var<storage, read> v: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> sums: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  var index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let heads = shape.heads;
  let head4 = shape.head4;
  let features4 = shape.features4;
  let cols = (head4 + 1u) / 2u;
  let col = index % cols * 2u;
  index /= cols;
  let feature_pairs = (features4 + 1u) / 2u;
  let feature = index % feature_pairs * 2u;
  index /= feature_pairs;
  let head = index % heads;
  let block = index / heads;
  if (block >= shape.batch_rows * shape.blocks) {
    return;
  }
  let first = block % shape.blocks * shape.block_tokens;
  let n_tokens = min(shape.block_tokens, shape.tokens - first);
  let token = block / shape.blocks * shape.tokens + first;
  let next_col = min(col + 1u, head4 - 1u);
  let next_feature = min(feature + 1u, features4 - 1u);
  var p = (token * heads + head) * features4;
  var i = shape.v_offset4 + token * shape.v_stride4 + head * head4;
  var a = Eight();
  var b = Eight();
  var z0 = vec4f();
  var z1 = vec4f();
  for (var t = 0u; t < n_tokens; t++) {
    let p0 = phi[p + feature];
    let p1 = phi[p + next_feature];
    a = eight_add_outer(a, p0, p1, v[i + col]);
    b = eight_add_outer(b, p0, p1, v[i + next_col]);
    z0 += p0;
    z1 += p1;
    p += heads * features4;
    i += shape.v_stride4;
  }
  let stride4 = heads * head4;
  let base = block * (4u * features4 * stride4 + heads * features4);
  let n_rows = min(8u, 4u * (features4 - feature));
  for (var r = 0u; r < n_rows; r++) {
    let at = base + (4u * feature + r) * stride4 + head * head4;
    sums[at + col] = eight_row(a, r);
    if (col + 1u < head4) {
      sums[at + col + 1u] = eight_row(b, r);
    }
  }
  if (col == 0u) {
    let at = base + 4u * features4 * stride4 + head * features4;
    sums[at + feature] = z0;
    if (feature + 1u < features4) {
      sums[at + feature + 1u] = z1;
    }
  }
}
