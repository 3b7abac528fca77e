// Rows of y (and of residual, which lies like y) in f16, whose length and position are multiples of 4 elements. Sums stay f32 until they are
// stored. Local rows as in store_y_vec4.wgsl.

alias YElement = vec2u;

const ADD_TO_Y: u32 = 2u;

fn y_base(row: u32) -> u32 {
  return ((row / shape.y_span) * shape.y_pitch + row % shape.y_span) * shape.y_stride;
}

fn store_y(base: u32, col: u32, value: vec4f) {
  let i = base + col;
  var sum = value;
  if (shape.has_residual != 0u) {
    var v: vec2u;
    if (shape.has_residual == ADD_TO_Y) {
      v = y[shape.y_offset + i];
    } else {
      v = residual[shape.residual_offset + i];
    }
    sum += vec4f(unpack2x16float(v.x), unpack2x16float(v.y));
  }
  y[shape.y_offset + i] = vec2u(pack2x16float(sum.xy), pack2x16float(sum.zw));
}
