// What PoM's expansions share. `shape` has degree, group4, positions_offset and rotations; the kernel declares
//   constants [vec4f]    coefficients [degree, k·E], of power j + 1 in row j; from `rotations` on cosines and sines [positions, 2, E]
//   positions [u32]      rows of the table of rotations, from positions_offset on: order / 2 for each row of x (read when rotary)
//
// A grouped projection reads, for the group4 columns of a group, its own stretch of x (group4 is 0 where there is one group).

var<private> x_first: u32 = 0u;

fn project(row: u32, last: u32, col: u32) -> Tile {
  if (shape.group4 != 0u) {
    x_first = col / shape.group4 * x_part();
  }
  let z = tile_linear(row, last, col, shape.inner4, shape.w_stride4);
  x_first = 0u;
  return z;
}

fn polynomial(row: u32, last: u32, col: u32) -> Tile {
  let a = tile_activate(project(row, last, col));
  var p = tile_multiply(a, tile_coefficients(shape.degree - 1u, col));
  for (var j = shape.degree - 1u; j > 0u; j--) {
    p = tile_horner(p, a, j - 1u, col);
  }
  return p;
}

fn coefficient(j: u32, col: u32) -> vec4f {
  let stride4 = shape.order * shape.expand4;
  return constants[j * stride4 + min(col, stride4 - 1u)];
}

// a cos + sign · b sin, for a row of x and 4 channels of plane `plane`.
fn turn(a: vec4f, b: vec4f, sign: f32, row: u32, plane: u32, channel: u32) -> vec4f {
  let position = positions[shape.positions_offset + row * (shape.order / 2u) + plane];
  let i = shape.rotations + 2u * position * shape.expand4 + min(channel, shape.expand4 - 1u);
  return a * constants[i] + sign * b * constants[i + shape.expand4];
}
