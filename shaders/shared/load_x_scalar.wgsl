// Rows of x of any length at any position; the last vec4f of a row is filled up with zeros. Local rows as in load_x_vec4.wgsl.

alias XElement = f32;

fn x_base(row: u32) -> u32 {
  return shape.x_offset + x_first + ((row / shape.x_span) * shape.x_pitch + row % shape.x_span) * shape.x_stride;
}

fn load_x(base: u32, k: u32) -> vec4f {
  let i = base + 4u * k;
  let left = shape.inner - 4u * k;
  var v = vec4f(x[i], 0.0, 0.0, 0.0);
  if (left > 1u) {
    v.y = x[i + 1u];
  }
  if (left > 2u) {
    v.z = x[i + 2u];
  }
  if (left > 3u) {
    v.w = x[i + 3u];
  }
  return v;
}

fn x_part() -> u32 {
  return shape.inner;
}
