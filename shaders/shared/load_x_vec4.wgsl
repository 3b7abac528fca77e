// Rows of x whose length and position are multiples of 4 elements. Local row r is row (r / x_span) * x_pitch + r % x_span of x:
// spans of x_span rows, x_pitch rows apart, so that a slab may hold a stretch of every batch row. x_first is 0 but where polynomial.wgsl reads a group's
// part of a row, `x_part` elements long.

alias XElement = vec4f;

fn x_base(row: u32) -> u32 {
  return shape.x_offset + x_first + ((row / shape.x_span) * shape.x_pitch + row % shape.x_span) * shape.x_stride;
}

fn load_x(base: u32, k: u32) -> vec4f {
  return x[base + k];
}

fn x_part() -> u32 {
  return shape.inner4;
}
