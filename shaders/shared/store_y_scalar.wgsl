// Rows of y (and of residual, which lies like y) of any length at any position. Local rows as in store_y_vec4.wgsl.

alias YElement = f32;

const ADD_TO_Y: u32 = 2u;

fn y_base(row: u32) -> u32 {
  return ((row / shape.y_span) * shape.y_pitch + row % shape.y_span) * shape.y_stride;
}

fn store_y(base: u32, col: u32, value: vec4f) {
  let i = base + 4u * col;
  for (var j = 0u; j < min(4u, shape.outer - 4u * col); j++) {
    if (shape.has_residual == ADD_TO_Y) {
      y[shape.y_offset + i + j] += value[j];
    } else if (shape.has_residual != 0u) {
      y[shape.y_offset + i + j] = residual[shape.residual_offset + i + j] + value[j];
    } else {
      y[shape.y_offset + i + j] = value[j];
    }
  }
}
