// Rows of y (and of residual, which lies like y) whose length and position are multiples of 4 elements.
// Local row r is row (r / y_span) * y_pitch + r % y_span. With ADD_TO_Y, what y holds is added instead of a residual.

alias YElement = vec4f;

const ADD_TO_Y: u32 = 2u;

fn y_base(row: u32) -> u32 {
  return ((row / shape.y_span) * shape.y_pitch + row % shape.y_span) * shape.y_stride;
}

fn store_y(base: u32, col: u32, value: vec4f) {
  let i = base + col;
  if (shape.has_residual == ADD_TO_Y) {
    y[shape.y_offset + i] += value;
  } else if (shape.has_residual != 0u) {
    y[shape.y_offset + i] = residual[shape.residual_offset + i] + value;
  } else {
    y[shape.y_offset + i] = value;
  }
}
