// Token embedding plus position embedding.
//
//   y[i, c] = table[ids[i], c] + positions[position_rows[i], c]
//
//   ids, position_rows [tokens]   table [V, D] token_emb.weight   positions [P, D]   y [tokens, D]
//
// One invocation owns one element. Cost: reads 2·tokens·D, writes tokens·D.

struct Shape {
  tokens: u32,
  dim: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> position_rows: array<u32>;
@group(0) @binding(3) var<storage, read> table: array<f32>;
@group(0) @binding(4) var<storage, read> positions: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let dim = shape.dim;
  if (index >= shape.tokens * dim) {
    return;
  }
  let token = index / dim;
  let channel = index % dim;
  y[index] = table[ids[token] * dim + channel] + positions[position_rows[token] * dim + channel];
}
