// Token embedding: a row of the table for each token id.
//
//   y[i, c] = table[ids[i], c]
//
//   ids [tokens]   table [V, D] token_emb.weight   y [tokens, D]
//
// One invocation owns one element. Cost: reads and writes tokens·D.

struct Shape {
  tokens: u32,
  dim: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> table: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  if (index >= shape.tokens * shape.dim) {
    return;
  }
  y[index] = table[ids[index / shape.dim] * shape.dim + index % shape.dim];
}
