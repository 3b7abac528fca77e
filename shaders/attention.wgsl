// Softmax attention with streamed scores, head by head: no matrix of queries by keys reaches memory.
//
//   y_t = Σ_n 2^(q_t·k_n) v_n / Σ_n 2^(q_t·k_n),   over all keys, or with `causal` over those up to the query's own token
//
//   q      [batch rows, queries, H·d]   multiplied by log2(e) / √d beforehand, so that 2^(q·k) is the exponential of the scaled score
//   kv     [batch rows, keys, 2·H·d]    keys, then values; each head's d channels padded to a multiple of 4 with zeros
//   stats  [batch rows, queries, H, column groups] of (largest score, sum): from one slab of keys to the next
//   y      [batch rows, queries, H·d]   divided by the sum in the last slab of keys
//
// A workgroup owns TILE_QUERIES queries of one head, and of their outputs 32·HEAD_COLUMNS channels. It walks the keys in tiles of 64: a lane
// holds the scores of QUERY_ROWS queries x 8 keys, shares the largest of each row, then the exponentials, and adds up QUERY_ROWS queries x
// HEAD_COLUMNS columns of 4 channels, all in registers. Tiles of the future are skipped.
// Cost for T queries and n keys a head: 4·T·n·d FLOPs (half of it with `causal`); reads the keys and values T / TILE_QUERIES times, writes T·d.
// Lost, for heads of 64 on SwiftShader and lavapipe: 4 keys a lane instead of 8 (1.15 times the time), and 4 queries too, with the largest score
// and the sum of a row taken by two lanes each, four barriers for 32 keys (1.2 and 1.35 times). 8 queries a lane instead of 4 take 0.8 of the
// time there, and twice as long to compile (3 s on SwiftShader, 10 s on lavapipe); a GPU would rather have more workgroups.

struct Shape {
  heads: u32,
  head4: u32,
  column_groups: u32,
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

const SIDES: u32 = 8u;
// Keys whose exponentials are shared at once.
const HALF_KEYS: u32 = 4u * SIDES;
const TILE_KEYS: u32 = 2u * HALF_KEYS;
const TILE_QUERIES: u32 = WORKGROUP_SIZE / SIDES * QUERY_ROWS;
// One more than a row needs: rows begin in different banks.
const PITCH: u32 = SIDES + 1u;

// [query of the tile, 4 keys], [query of the tile, side]
var<workgroup> sh_p: array<vec4f, TILE_QUERIES * PITCH>;
var<workgroup> sh_side: array<f32, TILE_QUERIES * PITCH>;
var<workgroup> sh_max: array<f32, TILE_QUERIES>;
var<workgroup> sh_scale: array<f32, TILE_QUERIES>;

// Scores of 4 queries, a column each.
fn mask_scores(s: mat4x4f, key: u32, seen: vec4u) -> mat4x4f {
  return mat4x4f(visible(s[0], key, seen.x), visible(s[1], key, seen.y), visible(s[2], key, seen.z), visible(s[3], key, seen.w));
}

fn share_largest(s: mat4x4f, t: mat4x4f, local: u32, side: u32) {
  let at = local * PITCH + side;
  sh_side[at] = largest_of(max(s[0], t[0]));
  sh_side[at + PITCH] = largest_of(max(s[1], t[1]));
  sh_side[at + 2u * PITCH] = largest_of(max(s[2], t[2]));
  sh_side[at + 3u * PITCH] = largest_of(max(s[3], t[3]));
}

// Writes the exponentials of 4 keys for 4 queries; returns their sums.
fn share_exponentials(s: mat4x4f, local: u32, side: u32) -> vec4f {
  let at = local * PITCH + side;
  let p = mat4x4f(exp2(s[0] - sh_max[local]), exp2(s[1] - sh_max[local + 1u]), exp2(s[2] - sh_max[local + 2u]), exp2(s[3] - sh_max[local + 3u]));
  sh_p[at] = p[0];
  sh_p[at + PITCH] = p[1];
  sh_p[at + 2u * PITCH] = p[2];
  sh_p[at + 3u * PITCH] = p[3];
  return vec4f(1.0) * p;
}

fn load_p(local: u32, i: u32) -> mat4x4f {
  let at = local * PITCH + i;
  return mat4x4f(sh_p[at], sh_p[at + PITCH], sh_p[at + 2u * PITCH], sh_p[at + 3u * PITCH]);
}

fn load_scale(local: u32) -> vec4f {
  return vec4f(sh_scale[local], sh_scale[local + 1u], sh_scale[local + 2u], sh_scale[local + 3u]);
}

fn scaled(m: mat4x4f, factors: vec4f) -> mat4x4f {
  return mat4x4f(m[0] * factors.x, m[1] * factors.y, m[2] * factors.z, m[3] * factors.w);
}

fn load_y(rows: vec4u, column: u32) -> mat4x4f {
  let c = min(column, shape.head4 - 1u);
  return mat4x4f(y[rows.x + c], y[rows.y + c], y[rows.z + c], y[rows.w + c]);
}

fn store_y(rows: vec4u, column: u32, m: mat4x4f, row: u32) {
  if (column >= shape.head4) {
    return;
  }
  if (row < shape.queries) {
    y[rows.x + column] = m[0];
  }
  if (row + 1u < shape.queries) {
    y[rows.y + column] = m[1];
  }
  if (row + 2u < shape.queries) {
    y[rows.z + column] = m[2];
  }
  if (row + 3u < shape.queries) {
    y[rows.w + column] = m[3];
  }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head4 = shape.head4;
  let heads = shape.heads;
  let queries = shape.queries;
  let tiles = (queries + TILE_QUERIES - 1u) / TILE_QUERIES;
  var index = group.x + group.y * grid.x;
  // The last queries see most keys: they begin.
  let tile0 = (tiles - 1u - index % tiles) * TILE_QUERIES;
  index /= tiles;
  let column_group = index % shape.column_groups;
  index /= shape.column_groups;
  let head = index % heads;
  let batch_row = index / heads;
  if (batch_row >= shape.batch_rows) {
    return;
  }
  let stride = heads * head4;
  let kv_stride = 2u * stride;
  let k_base = batch_row * shape.keys * kv_stride + head * head4;
  let side = lane % SIDES;
  let local = lane / SIDES * QUERY_ROWS;
  let row = tile0 + local;
  let q_base = batch_row * queries * stride + head * head4;
  let upper = rows_from(q_base, row, queries, stride);
  let lower = rows_from(q_base, row + 4u, queries, stride);
  // Columns of the outputs; where there is none, the last one is loaded and nothing stored.
  let column_a = column_group * SIDES * HEAD_COLUMNS + side;
  let column_b = column_a + SIDES;
  let column_c = column_b + SIDES;
  let column_d = column_c + SIDES;
  let value_a = stride + min(column_a, head4 - 1u);
  let value_b = stride + min(column_b, head4 - 1u);
  let value_c = stride + min(column_c, head4 - 1u);
  let value_d = stride + min(column_d, head4 - 1u);
  var upper_a = mat4x4f();
  var upper_b = mat4x4f();
  var upper_c = mat4x4f();
  var upper_d = mat4x4f();
  var lower_a = mat4x4f();
  var lower_b = mat4x4f();
  var lower_c = mat4x4f();
  var lower_d = mat4x4f();
  if (shape.accumulate != 0u) {
    upper_a = load_y(upper, column_a);
    if (HEAD_COLUMNS > 1u) {
      upper_b = load_y(upper, column_b);
    }
    if (HEAD_COLUMNS > 2u) {
      upper_c = load_y(upper, column_c);
      upper_d = load_y(upper, column_d);
    }
    if (QUERY_ROWS > 4u) {
      lower_a = load_y(lower, column_a);
      if (HEAD_COLUMNS > 1u) {
        lower_b = load_y(lower, column_b);
      }
      if (HEAD_COLUMNS > 2u) {
        lower_c = load_y(lower, column_c);
        lower_d = load_y(lower, column_d);
      }
    }
  }
  // Over the lane's own keys.
  var upper_sum = vec4f();
  var lower_sum = vec4f();
  // Of query tile0 + lane, where there is one: the largest score so far, and the sum of earlier slabs.
  var row_max = LOWEST;
  var row_sum = 0.0;
  let is_row = lane < TILE_QUERIES && tile0 + lane < queries;
  let stats_at = ((batch_row * queries + tile0 + lane) * heads + head) * shape.column_groups + column_group;
  if (is_row && shape.accumulate != 0u) {
    row_max = stats[stats_at].x;
    row_sum = stats[stats_at].y;
  }
  let upper_seen = vec4u(seen_by(row), seen_by(row + 1u), seen_by(row + 2u), seen_by(row + 3u));
  let lower_seen = vec4u(seen_by(row + 4u), seen_by(row + 5u), seen_by(row + 6u), seen_by(row + 7u));
  let n_tiles = (seen_by(min(tile0 + TILE_QUERIES, queries) - 1u) + TILE_KEYS - 1u) / TILE_KEYS;
  for (var tile = 0u; tile < n_tiles; tile++) {
    let key = tile * TILE_KEYS + side * 4u;
    let k_rows = rows_from(k_base, key, shape.keys, kv_stride);
    let k2_rows = rows_from(k_base, key + HALF_KEYS, shape.keys, kv_stride);
    var s = mat4x4f();
    var t = mat4x4f();
    var s2 = mat4x4f();
    var t2 = mat4x4f();
    for (var d = 0u; d < head4; d++) {
      let k = transpose(load_kv(k_rows, d));
      let k2 = transpose(load_kv(k2_rows, d));
      let u = load_q(upper, d);
      s = add_product(s, k, u);
      s2 = add_product(s2, k2, u);
      if (QUERY_ROWS > 4u) {
        let l = load_q(lower, d);
        t = add_product(t, k, l);
        t2 = add_product(t2, k2, l);
      }
    }
    s = mask_scores(s, key, upper_seen);
    s2 = mask_scores(s2, key + HALF_KEYS, upper_seen);
    share_largest(s, s2, local, side);
    if (QUERY_ROWS > 4u) {
      t = mask_scores(t, key, lower_seen);
      t2 = mask_scores(t2, key + HALF_KEYS, lower_seen);
      share_largest(t, t2, local + 4u, side);
    }
    workgroupBarrier();

    if (lane < TILE_QUERIES) {
      var seen = row_max;
      for (var i = 0u; i < SIDES; i++) {
        seen = max(seen, sh_side[lane * PITCH + i]);
      }
      let scale = exp2(row_max - seen);
      row_max = seen;
      row_sum *= scale;
      sh_max[lane] = seen;
      sh_scale[lane] = scale;
    }
    workgroupBarrier();

    let upper_scale = load_scale(local);
    upper_sum *= upper_scale;
    upper_a = scaled(upper_a, upper_scale);
    if (HEAD_COLUMNS > 1u) {
      upper_b = scaled(upper_b, upper_scale);
    }
    if (HEAD_COLUMNS > 2u) {
      upper_c = scaled(upper_c, upper_scale);
      upper_d = scaled(upper_d, upper_scale);
    }
    if (QUERY_ROWS > 4u) {
      let lower_scale = load_scale(local + 4u);
      lower_sum *= lower_scale;
      lower_a = scaled(lower_a, lower_scale);
      if (HEAD_COLUMNS > 1u) {
        lower_b = scaled(lower_b, lower_scale);
      }
      if (HEAD_COLUMNS > 2u) {
        lower_c = scaled(lower_c, lower_scale);
        lower_d = scaled(lower_d, lower_scale);
      }
    }
    for (var half = 0u; half < 2u; half++) {
      if (half > 0u) {
        // The first half's exponentials have been read.
        workgroupBarrier();
        s = s2;
        t = t2;
      }
      upper_sum += share_exponentials(s, local, side);
      if (QUERY_ROWS > 4u) {
        lower_sum += share_exponentials(t, local + 4u, side);
      }
      workgroupBarrier();

      for (var i = 0u; i < SIDES; i++) {
        let v_rows = rows_from(k_base, tile * TILE_KEYS + half * HALF_KEYS + 4u * i, shape.keys, kv_stride);
        let a = load_kv(v_rows, value_a);
        let p = load_p(local, i);
        var r = mat4x4f();
        upper_a = add_product(upper_a, a, p);
        if (QUERY_ROWS > 4u) {
          r = load_p(local + 4u, i);
          lower_a = add_product(lower_a, a, r);
        }
        if (HEAD_COLUMNS > 1u) {
          let b = load_kv(v_rows, value_b);
          upper_b = add_product(upper_b, b, p);
          if (QUERY_ROWS > 4u) {
            lower_b = add_product(lower_b, b, r);
          }
        }
        if (HEAD_COLUMNS > 2u) {
          let c = load_kv(v_rows, value_c);
          let d = load_kv(v_rows, value_d);
          upper_c = add_product(upper_c, c, p);
          upper_d = add_product(upper_d, d, p);
          if (QUERY_ROWS > 4u) {
            lower_c = add_product(lower_c, c, r);
            lower_d = add_product(lower_d, d, r);
          }
        }
      }
    }
  }

  let at = local * PITCH + side;
  sh_side[at] = upper_sum.x;
  sh_side[at + PITCH] = upper_sum.y;
  sh_side[at + 2u * PITCH] = upper_sum.z;
  sh_side[at + 3u * PITCH] = upper_sum.w;
  if (QUERY_ROWS > 4u) {
    sh_side[at + 4u * PITCH] = lower_sum.x;
    sh_side[at + 5u * PITCH] = lower_sum.y;
    sh_side[at + 6u * PITCH] = lower_sum.z;
    sh_side[at + 7u * PITCH] = lower_sum.w;
  }
  workgroupBarrier();
  if (is_row) {
    for (var i = 0u; i < SIDES; i++) {
      row_sum += sh_side[lane * PITCH + i];
    }
    sh_scale[lane] = select(1.0, 1.0 / row_sum, shape.last != 0u);
    stats[stats_at] = vec2f(row_max, row_sum);
  }
  workgroupBarrier();
  let upper_scale = load_scale(local);
  store_y(upper, column_a, scaled(upper_a, upper_scale), row);
  if (HEAD_COLUMNS > 1u) {
    store_y(upper, column_b, scaled(upper_b, upper_scale), row);
  }
  if (HEAD_COLUMNS > 2u) {
    store_y(upper, column_c, scaled(upper_c, upper_scale), row);
    store_y(upper, column_d, scaled(upper_d, upper_scale), row);
  }
  if (QUERY_ROWS > 4u) {
    let lower_scale = load_scale(local + 4u);
    store_y(lower, column_a, scaled(lower_a, lower_scale), row + 4u);
    if (HEAD_COLUMNS > 1u) {
      store_y(lower, column_b, scaled(lower_b, lower_scale), row + 4u);
    }
    if (HEAD_COLUMNS > 2u) {
      store_y(lower, column_c, scaled(lower_c, lower_scale), row + 4u);
      store_y(lower, column_d, scaled(lower_d, lower_scale), row + 4u);
    }
  }
}
