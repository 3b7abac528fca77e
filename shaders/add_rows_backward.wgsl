// Gradients of a gated sum of rows, y = clamp(a + b ⊙ (1 + g), ±limit) (add_rows.wgsl), each row with its own gradient of g.
//
//   da = dy where a + b ⊙ (1 + g) is within the limit, else 0, in place of dy,   db = da ⊙ (1 + g),   dg = da ⊙ b
//
//   a, b, dy, db   [B·tokens, D]  (a read when limited)
//   g              elements from g_at + b·g_batch + t·g_token on
//   dg             rows of dg_step numbers, one a token, from number dg_at of a row on
//
// One invocation owns one number. Cost: reads up to 4·B·tokens·D, writes 3·B·tokens·D.

struct Shape {
  dim: u32,
  tokens: u32,
  size: u32,
  g_at: u32,
  g_batch: u32,
  g_token: u32,
  dg_at: u32,
  dg_step: u32,
  limited: u32,
  limit: f32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> g: array<f32>;
@group(0) @binding(4) var<storage, read_write> dy: array<f32>;
@group(0) @binding(5) var<storage, read_write> db: array<f32>;
@group(0) @binding(6) var<storage, read_write> dg: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  if (index >= shape.size) {
    return;
  }
  let c = index % shape.dim;
  let row = index / shape.dim;
  let factor = 1.0 + g[shape.g_at + row / shape.tokens * shape.g_batch + row % shape.tokens * shape.g_token + c];
  let value = b[index];
  var gradient = dy[index];
  if (shape.limited != 0u) {
    if (abs(a[index] + value * factor) > shape.limit) {
      gradient = 0.0;
    }
    dy[index] = gradient;
  }
  db[index] = gradient * factor;
  dg[row * shape.dg_step + shape.dg_at + c] = gradient * value;
}
