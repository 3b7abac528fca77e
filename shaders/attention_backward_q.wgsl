// Gradients of the queries of softmax attention, head by head. Shares of keys are computed anew from the scores: no matrix of queries by keys reaches memory.
//
//   p_tn = 2^(q_t·k_n - largest_t) / sum_t,   ds_tn = p_tn (dy_t·v_n - dy_t·y_t),   dq_t = scale Σ_n ds_tn k_n,   over the keys that t sees
//
//   q          [batch rows, queries, H·d]   multiplied by log2(e) / √d
//   kv         [batch rows, keys, 2·H·d]    keys, then values
//   gradients  [batch rows, queries, H·d]   dy
//   rows       [batch rows, queries, H, 3]  largest, 1 / sum, dy·y, of attention_rows
//   dq         [batch rows, queries, H·d]   with `accumulate` going on from what an earlier slab of keys left, whose `scale` is 1
//
// A workgroup owns 32 queries of one head, and of their gradients 32·HEAD_COLUMNS channels. It walks the keys in tiles of 32: a lane computes the slopes of
// 4 queries x 4 keys, shares them, and adds up 4 queries x HEAD_COLUMNS columns of 4 channels. Tiles of the future are skipped.
// Cost for T queries and n keys a head: 6·T·n·d FLOPs (half of it with `causal`); reads the keys and values T / 32 times.

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
  scale: f32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> q: array<vec4f>;
@group(0) @binding(2) var<storage, read> kv: array<vec4f>;
@group(0) @binding(3) var<storage, read> gradients: array<vec4f>;
@group(0) @binding(4) var<storage, read> rows: array<f32>;
@group(0) @binding(5) var<storage, read_write> dq: array<vec4f>;

const SIDES: u32 = 8u;
// Queries of a tile, and keys of one: 4 a lane either way.
const TILE: u32 = QUERY_ROWS * SIDES;
// One more than a row needs: rows begin in different banks.
const PITCH: u32 = SIDES + 1u;

// [query of the tile, 4 keys]
var<workgroup> sh_slopes: array<vec4f, TILE * PITCH>;

fn slope(score: vec4f, value: vec4f, key: u32, seen: u32, largest: f32, inverse: f32, delta: f32) -> vec4f {
  return exp2(visible(score, key, seen) - largest) * inverse * (value - delta);
}

fn load_dq(at: vec4u, column: u32) -> mat4x4f {
  let c = min(column, shape.head4 - 1u);
  return mat4x4f(dq[at.x + c], dq[at.y + c], dq[at.z + c], dq[at.w + c]);
}

fn store_dq(at: vec4u, column: u32, m: mat4x4f, row: u32) {
  if (column >= shape.head4) {
    return;
  }
  if (row < shape.queries) {
    dq[at.x + column] = shape.scale * m[0];
  }
  if (row + 1u < shape.queries) {
    dq[at.y + column] = shape.scale * m[1];
  }
  if (row + 2u < shape.queries) {
    dq[at.z + column] = shape.scale * m[2];
  }
  if (row + 3u < shape.queries) {
    dq[at.w + column] = shape.scale * m[3];
  }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head4 = shape.head4;
  let heads = shape.heads;
  let queries = shape.queries;
  let tiles = (queries + TILE - 1u) / TILE;
  var index = group.x + group.y * grid.x;
  // The last queries see most keys: they begin.
  let tile0 = (tiles - 1u - index % tiles) * TILE;
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
  let local = lane / SIDES * 4u;
  let row = tile0 + local;
  let at = rows_from(batch_row * queries * stride + head * head4, row, queries, stride);
  let numbers = rows_from(batch_row * queries * heads + head, row, queries, heads);
  let largest = load_rows(numbers, 0u);
  let inverse = load_rows(numbers, 1u);
  let delta = load_rows(numbers, 2u);
  // Columns of the gradients; where there is none, the last one is loaded and nothing stored.
  let column_a = column_group * SIDES * HEAD_COLUMNS + side;
  let column_b = column_a + SIDES;
  let key_a = min(column_a, head4 - 1u);
  let key_b = min(column_b, head4 - 1u);
  var a = mat4x4f();
  var b = mat4x4f();
  if (shape.accumulate != 0u) {
    a = load_dq(at, column_a);
    if (HEAD_COLUMNS > 1u) {
      b = load_dq(at, column_b);
    }
  }
  let seen = vec4u(seen_by(row), seen_by(row + 1u), seen_by(row + 2u), seen_by(row + 3u));
  let n_tiles = (seen_by(min(tile0 + TILE, queries) - 1u) + TILE - 1u) / TILE;
  for (var tile = 0u; tile < n_tiles; tile++) {
    let key = tile * TILE + side * 4u;
    let k_at = rows_from(k_base, key, shape.keys, kv_stride);
    var s = mat4x4f();
    var p = mat4x4f();
    for (var d = 0u; d < head4; d++) {
      s = add_product(s, transpose(load_kv(k_at, d)), load_q(at, d));
      p = add_product(p, transpose(load_kv(k_at, stride + d)), load_gradients(at, d));
    }
    let to = local * PITCH + side;
    sh_slopes[to] = slope(s[0], p[0], key, seen.x, largest.x, inverse.x, delta.x);
    sh_slopes[to + PITCH] = slope(s[1], p[1], key, seen.y, largest.y, inverse.y, delta.y);
    sh_slopes[to + 2u * PITCH] = slope(s[2], p[2], key, seen.z, largest.z, inverse.z, delta.z);
    sh_slopes[to + 3u * PITCH] = slope(s[3], p[3], key, seen.w, largest.w, inverse.w, delta.w);
    workgroupBarrier();

    for (var i = 0u; i < SIDES; i++) {
      let rows4 = rows_from(k_base, tile * TILE + 4u * i, shape.keys, kv_stride);
      let source = local * PITCH + i;
      let slopes = mat4x4f(sh_slopes[source], sh_slopes[source + PITCH], sh_slopes[source + 2u * PITCH], sh_slopes[source + 3u * PITCH]);
      a = add_product(a, load_kv(rows4, key_a), slopes);
      if (HEAD_COLUMNS > 1u) {
        b = add_product(b, load_kv(rows4, key_b), slopes);
      }
    }
    // The slopes have been read.
    workgroupBarrier();
  }
  store_dq(at, column_a, a, row);
  if (HEAD_COLUMNS > 1u) {
    store_dq(at, column_b, b, row);
  }
}
