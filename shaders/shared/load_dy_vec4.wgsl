// Rows of a gradient dy whose length and position are multiples of 4 elements. Local rows as in load_x_vec4.wgsl.

alias DyElement = vec4f;

fn dy_base(row: u32) -> u32 {
  return shape.dy_offset + ((row / shape.dy_span) * shape.dy_pitch + row % shape.dy_span) * shape.dy_stride;
}

fn load_dy(base: u32, col: u32) -> vec4f {
  return dy[base + col];
}
