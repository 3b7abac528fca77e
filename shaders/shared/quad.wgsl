// 8 rows x 4 channels in registers, one named vec4f a row: indexed private arrays spill on software adapters
// (8x4, same arithmetic: named vec4f rows 1.21 GFLOP/s, array<vec4f, 8> in a loop 0.91). The tiles are made of these.

struct Quad {
  r0: vec4f,
  r1: vec4f,
  r2: vec4f,
  r3: vec4f,
  r4: vec4f,
  r5: vec4f,
  r6: vec4f,
  r7: vec4f,
}

fn quad_of_rows(a: vec4f, b: vec4f) -> Quad {
  return Quad(vec4f(a.x), vec4f(a.y), vec4f(a.z), vec4f(a.w), vec4f(b.x), vec4f(b.y), vec4f(b.z), vec4f(b.w));
}

fn quad_add(z: Quad, v: vec4f) -> Quad {
  return Quad(z.r0 + v, z.r1 + v, z.r2 + v, z.r3 + v, z.r4 + v, z.r5 + v, z.r6 + v, z.r7 + v);
}

// The channel's scale, where weights have one, and the bias.
fn quad_finish(z: Quad, scale: vec4f, bias: vec4f) -> Quad {
  if (W_SCALED) {
    return Quad(
      fma(z.r0, scale, bias),
      fma(z.r1, scale, bias),
      fma(z.r2, scale, bias),
      fma(z.r3, scale, bias),
      fma(z.r4, scale, bias),
      fma(z.r5, scale, bias),
      fma(z.r6, scale, bias),
      fma(z.r7, scale, bias),
    );
  }
  return quad_add(z, bias);
}

fn quad_subtract(a: Quad, b: Quad) -> Quad {
  return Quad(a.r0 - b.r0, a.r1 - b.r1, a.r2 - b.r2, a.r3 - b.r3, a.r4 - b.r4, a.r5 - b.r5, a.r6 - b.r6, a.r7 - b.r7);
}

fn quad_multiply(a: Quad, b: Quad) -> Quad {
  return Quad(a.r0 * b.r0, a.r1 * b.r1, a.r2 * b.r2, a.r3 * b.r3, a.r4 * b.r4, a.r5 * b.r5, a.r6 * b.r6, a.r7 * b.r7);
}

fn quad_activate(z: Quad) -> Quad {
  return Quad(activate(z.r0), activate(z.r1), activate(z.r2), activate(z.r3), activate(z.r4), activate(z.r5), activate(z.r6), activate(z.r7));
}

fn quad_gate(z: Quad) -> Quad {
  return Quad(gate(z.r0), gate(z.r1), gate(z.r2), gate(z.r3), gate(z.r4), gate(z.r5), gate(z.r6), gate(z.r7));
}

// Pairwise over the rows: a shorter chain of roundings than a running sum.
fn quad_sum(z: Quad) -> vec4f {
  return ((z.r0 + z.r1) + (z.r2 + z.r3)) + ((z.r4 + z.r5) + (z.r6 + z.r7));
}

// Row r becomes carry + z.r0 + ... + z.r(r).
fn quad_prefix(z: Quad, carry: vec4f) -> Quad {
  let s0 = carry + z.r0;
  let s1 = s0 + z.r1;
  let s2 = s1 + z.r2;
  let s3 = s2 + z.r3;
  let s4 = s3 + z.r4;
  let s5 = s4 + z.r5;
  let s6 = s5 + z.r6;
  return Quad(s0, s1, s2, s3, s4, s5, s6, s6 + z.r7);
}

// For epilogues only; a row chosen at run time costs a branch a row.
fn quad_row(z: Quad, r: u32) -> vec4f {
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
