// Softmax attention as attention.wgsl has it, with the same bindings, for heads of up to 64 channels: by quads, without workgroup memory or a barrier.
//
//   y_t = Σ_n 2^(q_t·k_n) v_n / Σ_n 2^(q_t·k_n),   over all keys, or with `causal` over those up to the query's own token
//
// A quad (four neighbouring invocations) owns 8 queries of one head and walks the keys in tiles of 16. A lane holds the scores of the 8 queries x
// 4 keys; the quad compares the largest ones, and the exponentials go around it while each lane adds up 8 queries x HEAD_COLUMNS columns of
// 4 channels. So a query is loaded once a quad, and an exponential never leaves the registers.
// Cost for T queries and n keys a head: 4·T·n·d FLOPs (half of it with `causal`); reads the keys and values T / 8 times, writes T·d.
// Needs `subgroups`, and lanes that follow the invocations' order, as product_16x8_quads.wgsl does. All of a quad take the same way.

struct Shape {
  heads: u32,
  head4: u32,
  batch_rows: u32,
  queries: u32,
  keys: u32,
  first_query: u32,
  first_key: u32,
  causal: u32,
  accumulate: u32,
  last: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> q: array<vec4f>;
@group(0) @binding(2) var<storage, read> kv: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> stats: array<vec2f>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;

const QUERIES: u32 = 8u;
const KEYS: u32 = 16u;

fn quad_max(v: vec4f) -> vec4f {
  let pair = max(v, quadSwapX(v));
  return max(pair, quadSwapY(pair));
}

fn quad_total(v: vec4f) -> vec4f {
  let pair = v + quadSwapX(v);
  return pair + quadSwapY(pair);
}

fn load_y(row: u32, column: u32) -> mat4x4f {
  let most = shape.head4 - 1u;
  var m = mat4x4f();
  m[0] = y[row + min(column, most)];
  if (HEAD_COLUMNS > 1u) {
    m[1] = y[row + min(column + 4u, most)];
  }
  if (HEAD_COLUMNS > 2u) {
    m[2] = y[row + min(column + 8u, most)];
    m[3] = y[row + min(column + 12u, most)];
  }
  return m;
}

fn store_y(row: u32, column: u32, value: vec4f) {
  if (column < shape.head4) {
    y[row + column] = value;
  }
}

fn store_row(query: u32, row: u32, column: u32, m: mat4x4f) {
  if (query >= shape.queries) {
    return;
  }
  store_y(row, column, m[0]);
  if (HEAD_COLUMNS > 1u) {
    store_y(row, column + 4u, m[1]);
  }
  if (HEAD_COLUMNS > 2u) {
    store_y(row, column + 8u, m[2]);
    store_y(row, column + 12u, m[3]);
  }
}

// The values' columns of 4 keys, times the keys' exponentials.
fn add_values(sum: mat4x4f, a: mat4x4f, b: mat4x4f, c: mat4x4f, d: mat4x4f, p: vec4f) -> mat4x4f {
  var m = sum;
  m[0] = add_column(m[0], a, p);
  if (HEAD_COLUMNS > 1u) {
    m[1] = add_column(m[1], b, p);
  }
  if (HEAD_COLUMNS > 2u) {
    m[2] = add_column(m[2], c, p);
    m[3] = add_column(m[3], d, p);
  }
  return m;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let invocation = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let lane = invocation % 4u;
  var index = invocation / 4u;
  let head4 = shape.head4;
  let heads = shape.heads;
  let queries = shape.queries;
  let tiles = (queries + QUERIES - 1u) / QUERIES;
  // The last queries see most keys: they begin.
  let query = (tiles - 1u - index % tiles) * QUERIES;
  index /= tiles;
  let head = index % heads;
  let batch_row = index / heads;
  if (batch_row >= shape.batch_rows) {
    return;
  }
  let stride = heads * head4;
  let kv_stride = 2u * stride;
  let k_base = batch_row * shape.keys * kv_stride + head * head4;
  let q_base = batch_row * queries * stride + head * head4;
  let upper = rows_from(q_base, query, queries, stride);
  let lower = rows_from(q_base, query + 4u, queries, stride);
  let own_upper = upper[lane];
  let own_lower = lower[lane];
  // Columns of the outputs; where there is none, the last one is loaded and nothing stored.
  let value_a = stride + min(lane, head4 - 1u);
  let value_b = stride + min(lane + 4u, head4 - 1u);
  let value_c = stride + min(lane + 8u, head4 - 1u);
  let value_d = stride + min(lane + 12u, head4 - 1u);
  var y0 = mat4x4f();
  var y1 = mat4x4f();
  var y2 = mat4x4f();
  var y3 = mat4x4f();
  var y4 = mat4x4f();
  var y5 = mat4x4f();
  var y6 = mat4x4f();
  var y7 = mat4x4f();
  // The largest scores so far, and sums over the lane's own keys.
  var upper_max = vec4f(LOWEST);
  var lower_max = vec4f(LOWEST);
  var upper_sum = vec4f();
  var lower_sum = vec4f();
  let stats_at = (batch_row * queries + query) * heads + head;
  if (shape.accumulate != 0u) {
    y0 = load_y(upper.x, lane);
    y1 = load_y(upper.y, lane);
    y2 = load_y(upper.z, lane);
    y3 = load_y(upper.w, lane);
    y4 = load_y(lower.x, lane);
    y5 = load_y(lower.y, lane);
    y6 = load_y(lower.z, lane);
    y7 = load_y(lower.w, lane);
    for (var i = 0u; i < min(QUERIES, queries - query); i++) {
      let before = stats[stats_at + i * heads];
      let sum = select(0.0, before.y, lane == 0u);
      if (i < 4u) {
        upper_max[i] = before.x;
        upper_sum[i] = sum;
      } else {
        lower_max[i - 4u] = before.x;
        lower_sum[i - 4u] = sum;
      }
    }
  }
  let end = seen_by(min(query + QUERIES, queries) - 1u);
  for (var tile = 0u; tile < end; tile += KEYS) {
    let key = tile + 4u * lane;
    let k_rows = rows_from(k_base, key, shape.keys, kv_stride);
    var s0 = vec4f();
    var s1 = vec4f();
    var s2 = vec4f();
    var s3 = vec4f();
    var s4 = vec4f();
    var s5 = vec4f();
    var s6 = vec4f();
    var s7 = vec4f();
    for (var d = 0u; d < head4; d++) {
      let k = transpose(load_kv(k_rows, d));
      let u = q[own_upper + d];
      s0 = add_column(s0, k, quadBroadcast(u, 0u));
      s1 = add_column(s1, k, quadBroadcast(u, 1u));
      s2 = add_column(s2, k, quadBroadcast(u, 2u));
      s3 = add_column(s3, k, quadBroadcast(u, 3u));
      let l = q[own_lower + d];
      s4 = add_column(s4, k, quadBroadcast(l, 0u));
      s5 = add_column(s5, k, quadBroadcast(l, 1u));
      s6 = add_column(s6, k, quadBroadcast(l, 2u));
      s7 = add_column(s7, k, quadBroadcast(l, 3u));
    }
    s0 = visible(s0, key, seen_by(query));
    s1 = visible(s1, key, seen_by(query + 1u));
    s2 = visible(s2, key, seen_by(query + 2u));
    s3 = visible(s3, key, seen_by(query + 3u));
    s4 = visible(s4, key, seen_by(query + 4u));
    s5 = visible(s5, key, seen_by(query + 5u));
    s6 = visible(s6, key, seen_by(query + 6u));
    s7 = visible(s7, key, seen_by(query + 7u));
    let upper_new = max(upper_max, quad_max(vec4f(largest_of(s0), largest_of(s1), largest_of(s2), largest_of(s3))));
    let lower_new = max(lower_max, quad_max(vec4f(largest_of(s4), largest_of(s5), largest_of(s6), largest_of(s7))));
    // After the first tiles a larger score is rare.
    if (any(upper_new > upper_max) || any(lower_new > lower_max)) {
      let upper_scale = exp2(upper_max - upper_new);
      let lower_scale = exp2(lower_max - lower_new);
      upper_max = upper_new;
      lower_max = lower_new;
      upper_sum *= upper_scale;
      lower_sum *= lower_scale;
      y0 *= upper_scale.x;
      y1 *= upper_scale.y;
      y2 *= upper_scale.z;
      y3 *= upper_scale.w;
      y4 *= lower_scale.x;
      y5 *= lower_scale.y;
      y6 *= lower_scale.z;
      y7 *= lower_scale.w;
    }
    var p = mat4x4f(exp2(s0 - upper_max.x), exp2(s1 - upper_max.y), exp2(s2 - upper_max.z), exp2(s3 - upper_max.w));
    var r = mat4x4f(exp2(s4 - lower_max.x), exp2(s5 - lower_max.y), exp2(s6 - lower_max.z), exp2(s7 - lower_max.w));
    upper_sum += vec4f(1.0) * p;
    lower_sum += vec4f(1.0) * r;
    // The exponentials go around: each lane has its own, then those of the lanes next to it, opposite, and on the other side.
    for (var turn = 0u; turn < 4u; turn++) {
      let owner = lane ^ turn ^ (turn >> 1u);
      let v_rows = rows_from(k_base, tile + 4u * owner, shape.keys, kv_stride);
      let a = load_kv(v_rows, value_a);
      var b = a;
      var c = a;
      var d = a;
      if (HEAD_COLUMNS > 1u) {
        b = load_kv(v_rows, value_b);
      }
      if (HEAD_COLUMNS > 2u) {
        c = load_kv(v_rows, value_c);
        d = load_kv(v_rows, value_d);
      }
      y0 = add_values(y0, a, b, c, d, p[0]);
      y1 = add_values(y1, a, b, c, d, p[1]);
      y2 = add_values(y2, a, b, c, d, p[2]);
      y3 = add_values(y3, a, b, c, d, p[3]);
      y4 = add_values(y4, a, b, c, d, r[0]);
      y5 = add_values(y5, a, b, c, d, r[1]);
      y6 = add_values(y6, a, b, c, d, r[2]);
      y7 = add_values(y7, a, b, c, d, r[3]);
      if (turn % 2u == 0u) {
        p = mat4x4f(quadSwapX(p[0]), quadSwapX(p[1]), quadSwapX(p[2]), quadSwapX(p[3]));
        r = mat4x4f(quadSwapX(r[0]), quadSwapX(r[1]), quadSwapX(r[2]), quadSwapX(r[3]));
      } else {
        p = mat4x4f(quadSwapY(p[0]), quadSwapY(p[1]), quadSwapY(p[2]), quadSwapY(p[3]));
        r = mat4x4f(quadSwapY(r[0]), quadSwapY(r[1]), quadSwapY(r[2]), quadSwapY(r[3]));
      }
    }
  }
  upper_sum = quad_total(upper_sum);
  lower_sum = quad_total(lower_sum);
  if (lane == 0u) {
    for (var i = 0u; i < min(QUERIES, queries - query); i++) {
      stats[stats_at + i * heads] = select(vec2f(lower_max[i % 4u], lower_sum[i % 4u]), vec2f(upper_max[i % 4u], upper_sum[i % 4u]), i < 4u);
    }
  }
  var upper_factor = vec4f(1.0);
  var lower_factor = vec4f(1.0);
  if (shape.last != 0u) {
    upper_factor = 1.0 / upper_sum;
    lower_factor = 1.0 / lower_sum;
  }
  store_row(query, upper.x, lane, y0 * upper_factor.x);
  store_row(query + 1u, upper.y, lane, y1 * upper_factor.y);
  store_row(query + 2u, upper.z, lane, y2 * upper_factor.z);
  store_row(query + 3u, upper.w, lane, y3 * upper_factor.w);
  store_row(query + 4u, lower.x, lane, y4 * lower_factor.x);
  store_row(query + 5u, lower.y, lane, y5 * lower_factor.y);
  store_row(query + 6u, lower.z, lane, y6 * lower_factor.z);
  store_row(query + 7u, lower.w, lane, y7 * lower_factor.w);
}
