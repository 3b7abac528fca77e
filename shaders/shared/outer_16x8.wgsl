// A register tile of 16 inputs x 8 outputs of a weight's gradient: half the loads a multiply-add of outer_8x4.wgsl, for adapters that pay most for
// loads; a GPU would spill it. The functions are those of outer_8x4.wgsl.

const TILE_ROWS4: u32 = 4u;
const TILE_COLS4: u32 = 2u;

// a: the first 4 outputs, b: the next.
struct OuterTile {
  a0: vec4f,
  b0: vec4f,
  a1: vec4f,
  b1: vec4f,
  a2: vec4f,
  b2: vec4f,
  a3: vec4f,
  b3: vec4f,
  a4: vec4f,
  b4: vec4f,
  a5: vec4f,
  b5: vec4f,
  a6: vec4f,
  b6: vec4f,
  a7: vec4f,
  b7: vec4f,
  a8: vec4f,
  b8: vec4f,
  a9: vec4f,
  b9: vec4f,
  a10: vec4f,
  b10: vec4f,
  a11: vec4f,
  b11: vec4f,
  a12: vec4f,
  b12: vec4f,
  a13: vec4f,
  b13: vec4f,
  a14: vec4f,
  b14: vec4f,
  a15: vec4f,
  b15: vec4f,
}

fn tile_outer(start: u32, end: u32, k: u32, col: u32) -> OuterTile {
  let k1 = min(k + 1u, shape.inner4 - 1u);
  let k2 = min(k + 2u, shape.inner4 - 1u);
  let k3 = min(k + 3u, shape.inner4 - 1u);
  let next = min(col + 1u, shape.outer4 - 1u);
  var a0 = vec4f();
  var b0 = vec4f();
  var a1 = vec4f();
  var b1 = vec4f();
  var a2 = vec4f();
  var b2 = vec4f();
  var a3 = vec4f();
  var b3 = vec4f();
  var a4 = vec4f();
  var b4 = vec4f();
  var a5 = vec4f();
  var b5 = vec4f();
  var a6 = vec4f();
  var b6 = vec4f();
  var a7 = vec4f();
  var b7 = vec4f();
  var a8 = vec4f();
  var b8 = vec4f();
  var a9 = vec4f();
  var b9 = vec4f();
  var a10 = vec4f();
  var b10 = vec4f();
  var a11 = vec4f();
  var b11 = vec4f();
  var a12 = vec4f();
  var b12 = vec4f();
  var a13 = vec4f();
  var b13 = vec4f();
  var a14 = vec4f();
  var b14 = vec4f();
  var a15 = vec4f();
  var b15 = vec4f();
  var row = start;
  while (row < end) {
    var p = x_base(row);
    var q = dy_base(row);
    let stop = run_end(row, end);
    for (; row < stop; row++) {
      let d = load_dy(q, col);
      let e = load_dy(q, next);
      let x0 = load_x(p, k);
      a0 += x0.x * d;
      b0 += x0.x * e;
      a1 += x0.y * d;
      b1 += x0.y * e;
      a2 += x0.z * d;
      b2 += x0.z * e;
      a3 += x0.w * d;
      b3 += x0.w * e;
      let x1 = load_x(p, k1);
      a4 += x1.x * d;
      b4 += x1.x * e;
      a5 += x1.y * d;
      b5 += x1.y * e;
      a6 += x1.z * d;
      b6 += x1.z * e;
      a7 += x1.w * d;
      b7 += x1.w * e;
      let x2 = load_x(p, k2);
      a8 += x2.x * d;
      b8 += x2.x * e;
      a9 += x2.y * d;
      b9 += x2.y * e;
      a10 += x2.z * d;
      b10 += x2.z * e;
      a11 += x2.w * d;
      b11 += x2.w * e;
      let x3 = load_x(p, k3);
      a12 += x3.x * d;
      b12 += x3.x * e;
      a13 += x3.y * d;
      b13 += x3.y * e;
      a14 += x3.z * d;
      b14 += x3.z * e;
      a15 += x3.w * d;
      b15 += x3.w * e;
      p += shape.x_stride;
      q += shape.dy_stride;
    }
  }
  return OuterTile(
    a0,
    b0,
    a1,
    b1,
    a2,
    b2,
    a3,
    b3,
    a4,
    b4,
    a5,
    b5,
    a6,
    b6,
    a7,
    b7,
    a8,
    b8,
    a9,
    b9,
    a10,
    b10,
    a11,
    b11,
    a12,
    b12,
    a13,
    b13,
    a14,
    b14,
    a15,
    b15,
  );
}

fn tile_row(z: OuterTile, r: u32, c: u32) -> vec4f {
  switch 2u * r + c {
    case 0u: { return z.a0; }
    case 1u: { return z.b0; }
    case 2u: { return z.a1; }
    case 3u: { return z.b1; }
    case 4u: { return z.a2; }
    case 5u: { return z.b2; }
    case 6u: { return z.a3; }
    case 7u: { return z.b3; }
    case 8u: { return z.a4; }
    case 9u: { return z.b4; }
    case 10u: { return z.a5; }
    case 11u: { return z.b5; }
    case 12u: { return z.a6; }
    case 13u: { return z.b6; }
    case 14u: { return z.a7; }
    case 15u: { return z.b7; }
    case 16u: { return z.a8; }
    case 17u: { return z.b8; }
    case 18u: { return z.a9; }
    case 19u: { return z.b9; }
    case 20u: { return z.a10; }
    case 21u: { return z.b10; }
    case 22u: { return z.a11; }
    case 23u: { return z.b11; }
    case 24u: { return z.a12; }
    case 25u: { return z.b12; }
    case 26u: { return z.a13; }
    case 27u: { return z.b13; }
    case 28u: { return z.a14; }
    case 29u: { return z.b14; }
    case 30u: { return z.a15; }
    default: { return z.b15; }
  }
}
