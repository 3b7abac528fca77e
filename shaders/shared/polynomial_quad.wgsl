// Polynomials and rotations of 8 rows x 4 channels.

fn quad_of(v: vec4f) -> Quad {
  return Quad(v, v, v, v, v, v, v, v);
}

fn quad_horner(p: Quad, a: Quad, c: vec4f) -> Quad {
  return Quad(
    (p.r0 + c) * a.r0,
    (p.r1 + c) * a.r1,
    (p.r2 + c) * a.r2,
    (p.r3 + c) * a.r3,
    (p.r4 + c) * a.r4,
    (p.r5 + c) * a.r5,
    (p.r6 + c) * a.r6,
    (p.r7 + c) * a.r7,
  );
}

fn quad_turn(a: Quad, b: Quad, sign: f32, row: u32, last: u32, plane: u32, channel: u32) -> Quad {
  return Quad(
    turn(a.r0, b.r0, sign, min(row, last), plane, channel),
    turn(a.r1, b.r1, sign, min(row + 1u, last), plane, channel),
    turn(a.r2, b.r2, sign, min(row + 2u, last), plane, channel),
    turn(a.r3, b.r3, sign, min(row + 3u, last), plane, channel),
    turn(a.r4, b.r4, sign, min(row + 4u, last), plane, channel),
    turn(a.r5, b.r5, sign, min(row + 5u, last), plane, channel),
    turn(a.r6, b.r6, sign, min(row + 6u, last), plane, channel),
    turn(a.r7, b.r7, sign, min(row + 7u, last), plane, channel),
  );
}
