// Products of rows with the sums of feature_sums.wgsl, or with their transpose, and what a token sees of its own block: what linear attention and
// its gradients are made of.
//
//   y_t = x_t S + Σ_s a[t, s] u_s     or     y_t = x_t Sᵀ + Σ_s a[t, s] u_s
//
//   x       [batch rows, tokens, H, inner4]
//   sums    [batch rows, blocks, S then z]         S [4·features4, H·width4]; one block a batch row, or with `local` one for every block of tokens
//   scores  [batch rows, tokens, H, block_tokens / 4]   read with `local`: 1 up to t itself, 2 from t to the end of the block
//   u       [batch rows, tokens, H, u_width4]      read with `local`
//   y       [batch rows, tokens, ...]              H heads of columns4 vec4s from y_offset4 on, rows y_stride4 apart
//
// inner4 is features4, or width4 where S is transposed. One invocation owns 8 tokens x 8 channels of one head.
// Cost for T tokens: 8·T·H·inner4·4·columns4 FLOPs, and 4·T·block_tokens·H·columns4 with `local`.
// Uses eight_rows.

struct Shape {
  heads: u32,
  inner4: u32,
  columns4: u32,
  features4: u32,
  width4: u32,
  is_transposed: u32,
  batch_rows: u32,
  tokens: u32,
  blocks: u32,
  block_tokens: u32,
  local: u32,
  u_width4: u32,
  y_offset4: u32,
  y_stride4: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> sums: array<vec4f>;
@group(0) @binding(3) var<storage, read> scores: array<vec4f>;
@group(0) @binding(4) var<storage, read> u: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4f>;

fn load_x(rows: EightRows, k: u32) -> Eight {
  return Eight(
    x[rows.upper.x + k],
    x[rows.upper.y + k],
    x[rows.upper.z + k],
    x[rows.upper.w + k],
    x[rows.lower.x + k],
    x[rows.lower.y + k],
    x[rows.lower.z + k],
    x[rows.lower.w + k],
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

// 4 rows of S, or of its transpose.
fn load_sums(i: u32, stride4: u32) -> mat4x4f {
  let m = mat4x4f(sums[i], sums[i + stride4], sums[i + 2u * stride4], sums[i + 3u * stride4]);
  if (shape.is_transposed != 0u) {
    return transpose(m);
  }
  return m;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  var index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let heads = shape.heads;
  let inner4 = shape.inner4;
  let columns4 = shape.columns4;
  let tokens = shape.tokens;
  let cols = (columns4 + 1u) / 2u;
  let col = index % cols * 2u;
  index /= cols;
  let head = index % heads;
  index /= heads;
  let tiles = (tokens + 7u) / 8u;
  let row = index % tiles * 8u;
  let batch_row = index / tiles;
  if (batch_row >= shape.batch_rows) {
    return;
  }
  let next = min(col + 1u, columns4 - 1u);
  let last = tokens - 1u;
  let within = row % shape.block_tokens;
  var block = batch_row * shape.blocks;
  if (shape.local != 0u) {
    block += row / shape.block_tokens;
  }
  let stride4 = heads * shape.width4;
  let base = block * (4u * shape.features4 * stride4 + heads * shape.features4) + head * shape.width4;
  // From one k to the next, and from one column to the next.
  var k_step = 4u * stride4;
  var col_step = 1u;
  if (shape.is_transposed != 0u) {
    k_step = 1u;
    col_step = 4u * stride4;
  }
  let x_rows = eight_rows((batch_row * tokens * heads + head) * inner4, row, last, heads * inner4);
  var a = Eight();
  var b = Eight();
  for (var k = 0u; k < inner4; k++) {
    let v = load_x(x_rows, k);
    a = eight_add_product(a, v, load_sums(base + k * k_step + col * col_step, stride4));
    b = eight_add_product(b, v, load_sums(base + k * k_step + next * col_step, stride4));
  }
  if (shape.local != 0u) {
    let keys4 = shape.block_tokens / 4u;
    let score_rows = eight_rows((batch_row * tokens * heads + head) * keys4, row, last, heads * keys4);
    let u_stride4 = heads * shape.u_width4;
    let u_base = batch_row * tokens * u_stride4 + head * shape.u_width4;
    var k = 0u;
    var end = (within + 8u) / 4u;
    if (shape.local == 2u) {
      k = within / 4u;
      end = min(keys4, (tokens - (row - within) + 3u) / 4u);
    }
    for (; k < end; k++) {
      let key = row - within + 4u * k;
      // Scores of tokens past the last are 0, what they would weigh is nothing.
      let at = u_base + min(vec4u(key, key + 1u, key + 2u, key + 3u), vec4u(last)) * u_stride4;
      let p = load_scores(score_rows, k);
      a = eight_add_product(a, p, mat4x4f(u[at.x + col], u[at.y + col], u[at.z + col], u[at.w + col]));
      b = eight_add_product(b, p, mat4x4f(u[at.x + next], u[at.y + next], u[at.z + next], u[at.w + next]));
    }
  }
  for (var r = 0u; r < min(8u, tokens - row); r++) {
    let at = shape.y_offset4 + (batch_row * tokens + row + r) * shape.y_stride4 + head * columns4;
    y[at + col] = eight_row(a, r);
    if (col + 1u < columns4) {
      y[at + col + 1u] = eight_row(b, r);
    }
  }
}
