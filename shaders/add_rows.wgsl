// Rows of two tensors added, each row taken by batch row, by token or by both: positions, conditions and gated residuals of the image models.
//
//   y[b, t] = clamp(act(a[b, t] + b[b, t] ⊙ (1 + g[b, t])), ±limit)
//
//   a, b, g, y   elements from x_at + b·x_batch + t·x_token on, x being a, b, g or y  (b read when has_b, g when has_g)
//
// One invocation owns one number. Cost: reads up to 3·B·tokens·D, writes B·tokens·D. Uses activations.

struct Shape {
  dim: u32,
  tokens: u32,
  size: u32,
  a_at: u32,
  a_batch: u32,
  a_token: u32,
  has_b: u32,
  b_at: u32,
  b_batch: u32,
  b_token: u32,
  has_g: u32,
  g_at: u32,
  g_batch: u32,
  g_token: u32,
  y_at: u32,
  y_batch: u32,
  y_token: u32,
  limited: u32,
  limit: f32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> g: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  if (index >= shape.size) {
    return;
  }
  let c = index % shape.dim;
  let t = index / shape.dim % shape.tokens;
  let row = index / (shape.dim * shape.tokens);
  var sum = a[shape.a_at + row * shape.a_batch + t * shape.a_token + c];
  if (shape.has_b != 0u) {
    var value = b[shape.b_at + row * shape.b_batch + t * shape.b_token + c];
    if (shape.has_g != 0u) {
      value *= 1.0 + g[shape.g_at + row * shape.g_batch + t * shape.g_token + c];
    }
    sum += value;
  }
  sum = activate(vec4f(sum)).x;
  if (shape.limited != 0u) {
    sum = clamp(sum, -shape.limit, shape.limit);
  }
  y[shape.y_at + row * shape.y_batch + t * shape.y_token + c] = sum;
}
