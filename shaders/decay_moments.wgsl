// Moments of a slab of tokens -> their decayed means: what a token adds fades by a factor of its channel with every token after it.
//
//   s_t = γ s_(t-1) + m_t,   n_t = γ n_(t-1) + 1,   h_t = s_t / n_t;   γ = 1 gives the plain causal mean
//
//   rows     [batch rows, slab tokens, k·E]   in: moments (prefix_moments.wgsl, plain); out: h, in place
//   decay    [3, E]                           γ, -ln γ, 1 / (1 - γ); the same for every order
//   running  [batch rows, 3, k·E]             s in two parts, then n: what came before (read when accumulate) and, afterwards, all of it; rows from
//                                             first_batch_row on
//
// One invocation owns 4 channels of one batch row and walks its tokens. Cost: reads and writes tokens·k·E.
// Uses decay.

struct Shape {
  first_batch_row: u32,
  batch_rows: u32,
  stride4: u32,
  expand4: u32,
  slab_tokens: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> decay: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> running: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> rows: array<vec4f>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let stride4 = shape.stride4;
  let channel = index % stride4;
  let batch_row = index / stride4;
  if (batch_row >= shape.batch_rows) {
    return;
  }
  let factor = decay[channel % shape.expand4];
  let state = (shape.first_batch_row + batch_row) * 3u * stride4 + channel;
  var s = Decaying(vec4f(), vec4f(), vec4f());
  if (shape.accumulate != 0u) {
    s = Decaying(running[state], running[state + stride4], running[state + 2u * stride4]);
  }
  var at = batch_row * shape.slab_tokens * stride4 + channel;
  for (var token = 0u; token < shape.slab_tokens; token++) {
    s = decay_add(s, factor, rows[at]);
    rows[at] = (s.base + s.sum) / s.count;
    at += stride4;
  }
  running[state] = s.base;
  running[state + stride4] = s.sum;
  running[state + 2u * stride4] = s.count;
}
