// Softmax attention with streamed scores: y = softmax(q kᵀ / √64) v, head by head, without an [N, N] in memory.
//
//   qkv  [tokens, 3·D]    queries, keys and values side by side, heads of 64
//   y    [tokens, D]
//
// A workgroup owns 32 queries of one head and walks the keys in tiles of 32: scores in registers (4 queries x 4 keys a lane), then their exponentials
// in workgroup memory (two lanes a query, with running maximum and sum), then the output in registers (4 queries x 8 channels a lane).
// Tokens in multiples of 32. CAUSAL (0 or 1) is appended: tiles of the future are skipped.

struct Sizes {
  tokens: u32,
  heads: u32,
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> qkv: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;

const TILE = 32u;
// vec4f of a head's channels, and of a tile's keys.
const HEAD4 = 16u;
const KEYS4 = 8u;
const LOWEST = -1e30;

var<workgroup> sh_p: array<vec4f, TILE * KEYS4>;
var<workgroup> sh_scale: array<f32, TILE>;
var<workgroup> sh_sum: array<f32, 2u * TILE>;

// sum + v m, for 4 keys x 4 channels of values m
fn add_product(sum: vec4f, v: vec4f, m: mat4x4f) -> vec4f {
  return fma(vec4f(v.w), m[3], fma(vec4f(v.z), m[2], fma(vec4f(v.y), m[1], fma(vec4f(v.x), m[0], sum))));
}

fn load_rows(base: u32, stride: u32) -> mat4x4f {
  return mat4x4f(qkv[base], qkv[base + stride], qkv[base + 2u * stride], qkv[base + 3u * stride]);
}

fn largest(v: vec4f) -> f32 {
  return max(max(v.x, v.y), max(v.z, v.w));
}

fn visible(score: vec4f, query: u32, key: u32) -> vec4f {
  if (CAUSAL == 0u) {
    return score;
  }
  return select(vec4f(LOWEST), score, vec4u(key, key + 1u, key + 2u, key + 3u) <= vec4u(query));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let stride = 3u * sizes.heads * HEAD4;
  let q_base = group.y * HEAD4;
  let k_base = q_base + sizes.heads * HEAD4;
  let v_base = k_base + sizes.heads * HEAD4;
  let query0 = group.x * TILE;
  let query = lane / 8u * 4u;
  let side = lane % 8u;
  let row = lane / 2u;
  let half = lane % 2u;
  // a: channels 4·side, b: channels 32 + 4·side
  var a0 = vec4f();
  var a1 = vec4f();
  var a2 = vec4f();
  var a3 = vec4f();
  var b0 = vec4f();
  var b1 = vec4f();
  var b2 = vec4f();
  var b3 = vec4f();
  var row_max = LOWEST;
  var row_sum = 0.0;
  let n_tiles = select(sizes.tokens / TILE, group.x + 1u, CAUSAL == 1u);
  for (var tile = 0u; tile < n_tiles; tile++) {
    let key0 = tile * TILE;

    var s0 = vec4f();
    var s1 = vec4f();
    var s2 = vec4f();
    var s3 = vec4f();
    let key = key0 + side * 4u;
    let qi = (query0 + query) * stride + q_base;
    let ki = key * stride + k_base;
    for (var d = 0u; d < HEAD4; d++) {
      let keys = load_rows(ki + d, stride);
      let queries = load_rows(qi + d, stride);
      s0 += queries[0] * keys;
      s1 += queries[1] * keys;
      s2 += queries[2] * keys;
      s3 += queries[3] * keys;
    }
    let at = query * KEYS4 + side;
    let q = query0 + query;
    sh_p[at] = visible(s0 * 0.125, q, key);
    sh_p[at + KEYS4] = visible(s1 * 0.125, q + 1u, key);
    sh_p[at + 2u * KEYS4] = visible(s2 * 0.125, q + 2u, key);
    sh_p[at + 3u * KEYS4] = visible(s3 * 0.125, q + 3u, key);
    workgroupBarrier();

    var seen = row_max;
    for (var i = 0u; i < KEYS4; i++) {
      seen = max(seen, largest(sh_p[row * KEYS4 + i]));
    }
    workgroupBarrier();
    let scale = exp(row_max - seen);
    row_max = seen;
    row_sum *= scale;
    for (var i = half * 4u; i < half * 4u + 4u; i++) {
      let p = exp(sh_p[row * KEYS4 + i] - seen);
      row_sum += (p.x + p.y) + (p.z + p.w);
      sh_p[row * KEYS4 + i] = p;
    }
    sh_scale[row] = scale;
    workgroupBarrier();

    let c0 = sh_scale[query];
    let c1 = sh_scale[query + 1u];
    let c2 = sh_scale[query + 2u];
    let c3 = sh_scale[query + 3u];
    a0 *= c0;
    a1 *= c1;
    a2 *= c2;
    a3 *= c3;
    b0 *= c0;
    b1 *= c1;
    b2 *= c2;
    b3 *= c3;
    for (var i = 0u; i < KEYS4; i++) {
      let vi = (key0 + 4u * i) * stride + v_base + side;
      let values_a = load_rows(vi, stride);
      let values_b = load_rows(vi + 8u, stride);
      let p0 = sh_p[query * KEYS4 + i];
      a0 = add_product(a0, p0, values_a);
      b0 = add_product(b0, p0, values_b);
      let p1 = sh_p[(query + 1u) * KEYS4 + i];
      a1 = add_product(a1, p1, values_a);
      b1 = add_product(b1, p1, values_b);
      let p2 = sh_p[(query + 2u) * KEYS4 + i];
      a2 = add_product(a2, p2, values_a);
      b2 = add_product(b2, p2, values_b);
      let p3 = sh_p[(query + 3u) * KEYS4 + i];
      a3 = add_product(a3, p3, values_a);
      b3 = add_product(b3, p3, values_b);
    }
    workgroupBarrier();
  }
  sh_sum[lane] = row_sum;
  workgroupBarrier();
  let width = sizes.heads * HEAD4;
  let out = (query0 + query) * width + q_base + side;
  let c0 = 1.0 / (sh_sum[2u * query] + sh_sum[2u * query + 1u]);
  let c1 = 1.0 / (sh_sum[2u * query + 2u] + sh_sum[2u * query + 3u]);
  let c2 = 1.0 / (sh_sum[2u * query + 4u] + sh_sum[2u * query + 5u]);
  let c3 = 1.0 / (sh_sum[2u * query + 6u] + sh_sum[2u * query + 7u]);
  y[out] = a0 * c0;
  y[out + 8u] = b0 * c0;
  y[out + width] = a1 * c1;
  y[out + width + 8u] = b1 * c1;
  y[out + 2u * width] = a2 * c2;
  y[out + 2u * width + 8u] = b2 * c2;
  y[out + 3u * width] = a3 * c3;
  y[out + 3u * width + 8u] = b3 * c3;
}
