// Rows of x in f16, whose length and position are multiples of 4 elements. Unpacked by core WGSL: no feature is needed. Local rows as in
// load_x_vec4.wgsl.

alias XElement = vec2u;

fn x_base(row: u32) -> u32 {
  return shape.x_offset + x_first + ((row / shape.x_span) * shape.x_pitch + row % shape.x_span) * shape.x_stride;
}

fn load_x(base: u32, k: u32) -> vec4f {
  let v = x[base + k];
  return vec4f(unpack2x16float(v.x), unpack2x16float(v.y));
}

fn x_part() -> u32 {
  return shape.inner4;
}
