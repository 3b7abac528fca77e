// Backward of decay_moments.wgsl: from the gradients of the decayed means to those of the moments, from the last token to the first.
//
//   g_t = dh_t / n_t + γ g_(t+1),   n_t = (1 - γ^(t+1)) / (1 - γ), or t + 1 for γ = 1
//
//   rows     [batch rows, slab tokens, rows_stride], k·E of each are used   in: dh; out: g, in place
//   decay    [3, E]                           γ, -ln γ, 1 / (1 - γ)
//   running  [batch rows, k·E]                g of the slab's first token, for the slab before it (read when accumulate)
//
// One invocation owns 4 channels of one batch row and walks its tokens. Cost: reads and writes tokens·k·E.

struct Shape {
  batch_rows: u32,
  stride4: u32,
  expand4: u32,
  rows_stride4: u32,
  slab_tokens: u32,
  first_token: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> decay: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> running: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> rows: array<vec4f>;

// 1 - exp(-v) for v >= 0; the series keeps the relative error small where the difference would cancel.
fn one_minus_exp(v: vec4f) -> vec4f {
  let s = min(v, vec4f(0.5));
  var series = fma(s, vec4f(-1.0 / 8.0), vec4f(1.0));
  series = fma(s * series, vec4f(-1.0 / 7.0), vec4f(1.0));
  series = fma(s * series, vec4f(-1.0 / 6.0), vec4f(1.0));
  series = fma(s * series, vec4f(-1.0 / 5.0), vec4f(1.0));
  series = fma(s * series, vec4f(-1.0 / 4.0), vec4f(1.0));
  series = fma(s * series, vec4f(-1.0 / 3.0), vec4f(1.0));
  series = fma(s * series, vec4f(-1.0 / 2.0), vec4f(1.0));
  return select(1.0 - exp(-min(v, vec4f(80.0))), s * series, v < vec4f(0.5));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let stride4 = shape.stride4;
  let expand4 = shape.expand4;
  let channel = index % stride4;
  let batch_row = index / stride4;
  if (batch_row >= shape.batch_rows) {
    return;
  }
  let factor = decay[channel % expand4];
  let rate = decay[expand4 + channel % expand4];
  let whole = decay[2u * expand4 + channel % expand4];
  var gradient = vec4f();
  if (shape.accumulate != 0u) {
    gradient = running[index];
  }
  for (var left = shape.slab_tokens; left > 0u; left--) {
    let at = (batch_row * shape.slab_tokens + left - 1u) * shape.rows_stride4 + channel;
    let tokens = f32(shape.first_token + left);
    let count = select(one_minus_exp(rate * tokens) * whole, vec4f(tokens), rate == vec4f());
    gradient = fma(factor, gradient, rows[at] / count);
    rows[at] = gradient;
  }
  running[index] = gradient;
}
