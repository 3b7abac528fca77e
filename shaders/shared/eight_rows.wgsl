// 8 rows x 4 channels in registers, one named vec4f a row as in quad.wgsl: what the kernels of linear attention are made of. Their operands lie in scratch
// memory, always in fours, so that they need none of the ways of loading that the tiles of a dense layer have.

struct Eight {
  r0: vec4f,
  r1: vec4f,
  r2: vec4f,
  r3: vec4f,
  r4: vec4f,
  r5: vec4f,
  r6: vec4f,
  r7: vec4f,
}

// One number a row.
struct EightSums {
  upper: vec4f,
  lower: vec4f,
}

// Positions of 8 rows `stride` apart; rows past `last` repeat it, so that every load is in bounds.
struct EightRows {
  upper: vec4u,
  lower: vec4u,
}

fn eight_rows(base: u32, row: u32, last: u32, stride: u32) -> EightRows {
  let upper = min(vec4u(row, row + 1u, row + 2u, row + 3u), vec4u(last));
  let lower = min(vec4u(row + 4u, row + 5u, row + 6u, row + 7u), vec4u(last));
  return EightRows(base + upper * stride, base + lower * stride);
}

fn eight_of(v: vec4f) -> Eight {
  return Eight(v, v, v, v, v, v, v, v);
}

// z + x m, row by row: m has 4 inner rows of 4 channels.
fn eight_add_product(z: Eight, x: Eight, m: mat4x4f) -> Eight {
  return Eight(
    add_row(z.r0, x.r0, m),
    add_row(z.r1, x.r1, m),
    add_row(z.r2, x.r2, m),
    add_row(z.r3, x.r3, m),
    add_row(z.r4, x.r4, m),
    add_row(z.r5, x.r5, m),
    add_row(z.r6, x.r6, m),
    add_row(z.r7, x.r7, m),
  );
}

fn add_row(z: vec4f, x: vec4f, m: mat4x4f) -> vec4f {
  return fma(vec4f(x.w), m[3], fma(vec4f(x.z), m[2], fma(vec4f(x.y), m[1], fma(vec4f(x.x), m[0], z))));
}

// z + p v, an outer product: 8 numbers p, a row each.
fn eight_add_outer(z: Eight, p0: vec4f, p1: vec4f, v: vec4f) -> Eight {
  return Eight(
    fma(vec4f(p0.x), v, z.r0),
    fma(vec4f(p0.y), v, z.r1),
    fma(vec4f(p0.z), v, z.r2),
    fma(vec4f(p0.w), v, z.r3),
    fma(vec4f(p1.x), v, z.r4),
    fma(vec4f(p1.y), v, z.r5),
    fma(vec4f(p1.z), v, z.r6),
    fma(vec4f(p1.w), v, z.r7),
  );
}

fn eight_add(z: Eight, v: vec4f) -> Eight {
  return Eight(z.r0 + v, z.r1 + v, z.r2 + v, z.r3 + v, z.r4 + v, z.r5 + v, z.r6 + v, z.r7 + v);
}

fn eight_multiply(a: Eight, b: Eight) -> Eight {
  return Eight(a.r0 * b.r0, a.r1 * b.r1, a.r2 * b.r2, a.r3 * b.r3, a.r4 * b.r4, a.r5 * b.r5, a.r6 * b.r6, a.r7 * b.r7);
}

// sums + x·u, row by row.
fn eight_add_dots(sums: EightSums, x: Eight, u: Eight) -> EightSums {
  return EightSums(
    sums.upper + vec4f(dot(x.r0, u.r0), dot(x.r1, u.r1), dot(x.r2, u.r2), dot(x.r3, u.r3)),
    sums.lower + vec4f(dot(x.r4, u.r4), dot(x.r5, u.r5), dot(x.r6, u.r6), dot(x.r7, u.r7)),
  );
}

// For epilogues only; a row chosen at run time costs a branch a row.
fn eight_row(z: Eight, r: u32) -> vec4f {
  switch r {
    case 0u: { return z.r0; }
    case 1u: { return z.r1; }
    case 2u: { return z.r2; }
    case 3u: { return z.r3; }
    case 4u: { return z.r4; }
    case 5u: { return z.r5; }
    case 6u: { return z.r6; }
    default: { return z.r7; }
  }
}

fn eight_sum(sums: EightSums, r: u32) -> f32 {
  if (r < 4u) {
    return sums.upper[r];
  }
  return sums.lower[r - 4u];
}
