// Squares of 4 rows by 4 numbers, for softmax attention and its backward pass.

// Positions of 4 rows; of the last one, where there are no more.
fn rows_from(base: u32, row: u32, count: u32, stride: u32) -> vec4u {
  return base + min(vec4u(row, row + 1u, row + 2u, row + 3u), vec4u(count - 1u)) * stride;
}

// z + m x, column by column.
fn add_product(z: mat4x4f, m: mat4x4f, x: mat4x4f) -> mat4x4f {
  return mat4x4f(add_column(z[0], m, x[0]), add_column(z[1], m, x[1]), add_column(z[2], m, x[2]), add_column(z[3], m, x[3]));
}

fn add_column(z: vec4f, m: mat4x4f, x: vec4f) -> vec4f {
  return fma(vec4f(x.w), m[3], fma(vec4f(x.z), m[2], fma(vec4f(x.y), m[1], fma(vec4f(x.x), m[0], z))));
}
