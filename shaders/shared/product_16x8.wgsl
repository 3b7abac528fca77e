// The product of tile_16x8.wgsl, every row loaded by every invocation.

// A column past the last repeats it, as rows do.
fn tile_product(row: u32, last: u32, col: u32, inner4: u32, stride4: u32) -> Tile {
  let p0 = x_base(min(row, last));
  let p1 = x_base(min(row + 1u, last));
  let p2 = x_base(min(row + 2u, last));
  let p3 = x_base(min(row + 3u, last));
  let p4 = x_base(min(row + 4u, last));
  let p5 = x_base(min(row + 5u, last));
  let p6 = x_base(min(row + 6u, last));
  let p7 = x_base(min(row + 7u, last));
  let p8 = x_base(min(row + 8u, last));
  let p9 = x_base(min(row + 9u, last));
  let p10 = x_base(min(row + 10u, last));
  let p11 = x_base(min(row + 11u, last));
  let p12 = x_base(min(row + 12u, last));
  let p13 = x_base(min(row + 13u, last));
  let p14 = x_base(min(row + 14u, last));
  let p15 = x_base(min(row + 15u, last));
  let stride_4 = 4u * stride4;
  var i = col;
  let next = min(col + 1u, stride4 - 1u);
  var j = next;
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
  for (var k = 0u; k < inner4; k++) {
    let m = load_w_block(i, k, col, inner4, stride4);
    let n = load_w_block(j, k, next, inner4, stride4);
    i += stride_4;
    j += stride_4;
    let x0 = load_x(p0, k);
    a0 += m * x0;
    b0 += n * x0;
    let x1 = load_x(p1, k);
    a1 += m * x1;
    b1 += n * x1;
    let x2 = load_x(p2, k);
    a2 += m * x2;
    b2 += n * x2;
    let x3 = load_x(p3, k);
    a3 += m * x3;
    b3 += n * x3;
    let x4 = load_x(p4, k);
    a4 += m * x4;
    b4 += n * x4;
    let x5 = load_x(p5, k);
    a5 += m * x5;
    b5 += n * x5;
    let x6 = load_x(p6, k);
    a6 += m * x6;
    b6 += n * x6;
    let x7 = load_x(p7, k);
    a7 += m * x7;
    b7 += n * x7;
    let x8 = load_x(p8, k);
    a8 += m * x8;
    b8 += n * x8;
    let x9 = load_x(p9, k);
    a9 += m * x9;
    b9 += n * x9;
    let x10 = load_x(p10, k);
    a10 += m * x10;
    b10 += n * x10;
    let x11 = load_x(p11, k);
    a11 += m * x11;
    b11 += n * x11;
    let x12 = load_x(p12, k);
    a12 += m * x12;
    b12 += n * x12;
    let x13 = load_x(p13, k);
    a13 += m * x13;
    b13 += n * x13;
    let x14 = load_x(p14, k);
    a14 += m * x14;
    b14 += n * x14;
    let x15 = load_x(p15, k);
    a15 += m * x15;
    b15 += n * x15;
  }
  return Tile(
    Quad(a0, a1, a2, a3, a4, a5, a6, a7),
    Quad(b0, b1, b2, b3, b4, b5, b6, b7),
    Quad(a8, a9, a10, a11, a12, a13, a14, a15),
    Quad(b8, b9, b10, b11, b12, b13, b14, b15),
  );
}
