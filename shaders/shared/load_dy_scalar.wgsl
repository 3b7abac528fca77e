// Rows of a gradient dy of any length at any position; the last vec4f of a row is filled up with zeros. Local rows as in load_x_vec4.wgsl.

alias DyElement = f32;

fn dy_base(row: u32) -> u32 {
  return shape.dy_offset + ((row / shape.dy_span) * shape.dy_pitch + row % shape.dy_span) * shape.dy_stride;
}

fn load_dy(base: u32, col: u32) -> vec4f {
  let i = base + 4u * col;
  let left = shape.outer - 4u * col;
  var v = vec4f(dy[i], 0.0, 0.0, 0.0);
  if (left > 1u) {
    v.y = dy[i + 1u];
  }
  if (left > 2u) {
    v.z = dy[i + 2u];
  }
  if (left > 3u) {
    v.w = dy[i + 3u];
  }
  return v;
}
