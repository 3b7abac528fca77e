// Gradients of the keys and values of softmax attention, head by head. Shares of keys are computed anew from the scores: no matrix of queries by keys reaches memory.
//
//   p_tn = 2^(q_t·k_n - largest_t) / sum_t,   ds_tn = p_tn (dy_t·v_n - dy_t·y_t)
//   dk_n = scale Σ_t ds_tn q_t,   dv_n = Σ_t p_tn dy_t,   over the queries that see n
//
//   q          [batch rows, queries, H·d]   multiplied by log2(e) / √d
//   kv         [batch rows, keys, 2·H·d]    keys, then values
//   gradients  [batch rows, queries, H·d]   dy
//   rows       [batch rows, queries, H, 3]  largest, 1 / sum, dy·y, of attention_rows
//   dkv        [batch rows, keys, 2·H·d]    dk, then dv; with `accumulate` going on from what an earlier slab of queries left, whose `scale` is 1
//
// A workgroup owns 32 keys of one head, and of their gradients 32·HEAD_COLUMNS channels each. It walks the queries in tiles of 32: a lane computes shares and
// slopes of 4 keys x 4 queries, shares them, and adds up 4 keys x HEAD_COLUMNS columns of 4 channels, twice. Tiles that see none of the keys are skipped.
// Cost for T queries and n keys a head: 8·T·n·d FLOPs (half of it with `causal`); reads the queries and their gradients n / 32 times.

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
@group(0) @binding(5) var<storage, read_write> dkv: array<vec4f>;

const SIDES: u32 = 8u;
// Queries of a tile, and keys of one: 4 a lane either way.
const TILE: u32 = QUERY_ROWS * SIDES;
// One more than a row needs: rows begin in different banks.
const PITCH: u32 = SIDES + 1u;

// [key of the tile, 4 queries]
var<workgroup> sh_shares: array<vec4f, TILE * PITCH>;
var<workgroup> sh_slopes: array<vec4f, TILE * PITCH>;

// The first query of the slab that sees a key of the slab, if any does.
fn first_seeing(key: u32) -> u32 {
  if (shape.causal == 0u) {
    return 0u;
  }
  return max(shape.first_key + key, shape.first_query) - shape.first_query;
}

// Shows the others a key's shares of 4 queries, and their slopes.
fn share(to: u32, score: vec4f, value: vec4f, query: u32, first: u32, largest: vec4f, inverse: vec4f, delta: vec4f) {
  let positions = vec4u(query, query + 1u, query + 2u, query + 3u);
  let sees = (positions >= vec4u(first)) & (positions < vec4u(shape.queries));
  let shares = exp2(select(vec4f(LOWEST), score, sees) - largest) * inverse;
  sh_shares[to] = shares;
  sh_slopes[to] = shares * (value - delta);
}

fn load_dkv(at: vec4u, column: u32) -> mat4x4f {
  return mat4x4f(dkv[at.x + column], dkv[at.y + column], dkv[at.z + column], dkv[at.w + column]);
}

fn store_dkv(at: vec4u, column: u32, m: mat4x4f, key: u32) {
  if (key < shape.keys) {
    dkv[at.x + column] = m[0];
  }
  if (key + 1u < shape.keys) {
    dkv[at.y + column] = m[1];
  }
  if (key + 2u < shape.keys) {
    dkv[at.z + column] = m[2];
  }
  if (key + 3u < shape.keys) {
    dkv[at.w + column] = m[3];
  }
}

fn load_shares(source: u32) -> mat4x4f {
  return mat4x4f(sh_shares[source], sh_shares[source + PITCH], sh_shares[source + 2u * PITCH], sh_shares[source + 3u * PITCH]);
}

fn load_slopes(source: u32) -> mat4x4f {
  return mat4x4f(sh_slopes[source], sh_slopes[source + PITCH], sh_slopes[source + 2u * PITCH], sh_slopes[source + 3u * PITCH]);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head4 = shape.head4;
  let heads = shape.heads;
  let queries = shape.queries;
  let keys = shape.keys;
  let tiles = (keys + TILE - 1u) / TILE;
  var index = group.x + group.y * grid.x;
  // The first keys are seen most: they begin.
  let tile0 = index % tiles * TILE;
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
  let q_base = batch_row * queries * stride + head * head4;
  let numbers_base = batch_row * queries * heads + head;
  let side = lane % SIDES;
  let local = lane / SIDES * 4u;
  let key = tile0 + local;
  let at = rows_from(batch_row * keys * kv_stride + head * head4, key, keys, kv_stride);
  // Columns of the gradients; where there is none, the last one is loaded and nothing stored.
  let column_a = column_group * SIDES * HEAD_COLUMNS + side;
  let column_b = column_a + SIDES;
  let from_a = min(column_a, head4 - 1u);
  let from_b = min(column_b, head4 - 1u);
  var dk_a = mat4x4f();
  var dk_b = mat4x4f();
  var dv_a = mat4x4f();
  var dv_b = mat4x4f();
  if (shape.accumulate != 0u) {
    dk_a = load_dkv(at, from_a);
    dv_a = load_dkv(at, stride + from_a);
    if (HEAD_COLUMNS > 1u) {
      dk_b = load_dkv(at, from_b);
      dv_b = load_dkv(at, stride + from_b);
    }
  }
  let first_seeing_key = vec4u(first_seeing(key), first_seeing(key + 1u), first_seeing(key + 2u), first_seeing(key + 3u));
  let n_tiles = (queries + TILE - 1u) / TILE;
  for (var tile = first_seeing(tile0) / TILE; tile < n_tiles; tile++) {
    let query = tile * TILE + side * 4u;
    let q_at = rows_from(q_base, query, queries, stride);
    let numbers = rows_from(numbers_base, query, queries, heads);
    var s = mat4x4f();
    var p = mat4x4f();
    for (var d = 0u; d < head4; d++) {
      s = add_product(s, transpose(load_q(q_at, d)), load_kv(at, d));
      p = add_product(p, transpose(load_gradients(q_at, d)), load_kv(at, stride + d));
    }
    let largest = load_rows(numbers, 0u);
    let inverse = load_rows(numbers, 1u);
    let delta = load_rows(numbers, 2u);
    let to = local * PITCH + side;
    share(to, s[0], p[0], query, first_seeing_key.x, largest, inverse, delta);
    share(to + PITCH, s[1], p[1], query, first_seeing_key.y, largest, inverse, delta);
    share(to + 2u * PITCH, s[2], p[2], query, first_seeing_key.z, largest, inverse, delta);
    share(to + 3u * PITCH, s[3], p[3], query, first_seeing_key.w, largest, inverse, delta);
    workgroupBarrier();

    for (var i = 0u; i < SIDES; i++) {
      let rows4 = rows_from(q_base, tile * TILE + 4u * i, queries, stride);
      let shares = load_shares(local * PITCH + i);
      let slopes = load_slopes(local * PITCH + i);
      dk_a = add_product(dk_a, load_q(rows4, from_a), slopes);
      dv_a = add_product(dv_a, load_gradients(rows4, from_a), shares);
      if (HEAD_COLUMNS > 1u) {
        dk_b = add_product(dk_b, load_q(rows4, from_b), slopes);
        dv_b = add_product(dv_b, load_gradients(rows4, from_b), shares);
      }
    }
    // Shares and slopes have been read.
    workgroupBarrier();
  }
  if (column_a < head4) {
    store_dkv(at, column_a, shape.scale * dk_a, key);
    store_dkv(at, stride + column_a, dv_a, key);
  }
  if (HEAD_COLUMNS > 1u && column_b < head4) {
    store_dkv(at, column_b, shape.scale * dk_b, key);
    store_dkv(at, stride + column_b, dv_b, key);
  }
}
