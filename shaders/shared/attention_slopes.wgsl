// What the backward kernels of softmax attention read beside attention_tiles.wgsl. The kernel binds gradients and rows.

fn load_gradients(at: vec4u, column: u32) -> mat4x4f {
  return mat4x4f(gradients[at.x + column], gradients[at.y + column], gradients[at.z + column], gradients[at.w + column]);
}

// One of the three numbers of 4 queries.
fn load_rows(at: vec4u, number: u32) -> vec4f {
  return vec4f(rows[3u * at.x + number], rows[3u * at.y + number], rows[3u * at.z + number], rows[3u * at.w + number]);
}
