// Gates by channel, turned where the layer has a rotation: see apply_gates.wgsl, whose bindings and uniforms this reads.

// Where the cosines of a row begin, for a chunk of channels.
fn turns_of(row: u32, chunk: u32) -> u32 {
  if (shape.planes == 0u) {
    return 0u;
  }
  let query = (shape.first_batch_row + row / shape.slab_queries) * shape.query_length + shape.first_query + row % shape.slab_queries;
  let position = positions[query * shape.planes + chunk / 2u];
  return 4u * (shape.rotations + 2u * position * shape.expand4);
}

// Number j of a chunk, where `other` is number j of the chunk that it is turned with; a sign of -1 turns back.
fn turned(own: f32, other: f32, sign: f32, chunk: u32, j: u32, turns: u32) -> f32 {
  let at = turns + j * shape.column_step;
  let cosine = constants[at];
  let sine = sign * constants[at + 4u * shape.expand4];
  if (chunk % 2u == 0u) {
    return own * cosine - other * sine;
  }
  return own * cosine + other * sine;
}

fn gate_of(row: u32, chunk: u32, channel: u32, turns: u32) -> f32 {
  let j = min(channel / shape.head_width, shape.chunk_gates - 1u);
  let first = row * shape.gates_stride + j;
  let own = gates[first + chunk * shape.chunk_gates];
  if (shape.planes == 0u) {
    return own;
  }
  return turned(own, gates[first + (chunk ^ 1u) * shape.chunk_gates], 1.0, chunk, j, turns);
}

// Of 4 channels of a row of moments.
fn gates_of(row: u32, col: u32) -> vec4f {
  let chunk = col / shape.expand4;
  let channel = 4u * (col % shape.expand4);
  let turns = turns_of(row, chunk);
  return vec4f(
    gate_of(row, chunk, channel, turns),
    gate_of(row, chunk, channel + 1u, turns),
    gate_of(row, chunk, channel + 2u, turns),
    gate_of(row, chunk, channel + 3u, turns),
  );
}
