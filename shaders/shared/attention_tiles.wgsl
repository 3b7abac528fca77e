// Queries, keys and values of softmax attention in squares of 4 x 4, and which keys a query sees. The kernel binds q and kv; `shape` has keys, first_query,
// first_key and causal.

const LOWEST: f32 = -1e30;

// One column of 4 rows: a matrix whose columns are the rows.
fn load_kv(rows: vec4u, column: u32) -> mat4x4f {
  return mat4x4f(kv[rows.x + column], kv[rows.y + column], kv[rows.z + column], kv[rows.w + column]);
}

fn load_q(rows: vec4u, column: u32) -> mat4x4f {
  return mat4x4f(q[rows.x + column], q[rows.y + column], q[rows.z + column], q[rows.w + column]);
}

// How many keys of the slab a query of the slab sees.
fn seen_by(query: u32) -> u32 {
  if (shape.causal == 0u) {
    return shape.keys;
  }
  return min(shape.keys, max(shape.first_query + query + 1u, shape.first_key) - shape.first_key);
}

// Scores of 4 keys of which the query sees those before `seen`.
fn visible(score: vec4f, key: u32, seen: u32) -> vec4f {
  return select(vec4f(LOWEST), score, vec4u(key, key + 1u, key + 2u, key + 3u) < vec4u(seen));
}

fn largest_of(v: vec4f) -> f32 {
  return max(max(v.x, v.y), max(v.z, v.w));
}
