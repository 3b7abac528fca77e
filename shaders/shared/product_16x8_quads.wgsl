// The product of tile_16x8.wgsl where the four invocations of a subgroup's quad have the same rows: each loads one row in four and shows it to the
// others. On SwiftShader, which pays for every load, 1.2 times as fast. Needs `subgroups`, lanes that follow the invocations' order, and tiles of columns
// in multiples of 4, so that a quad never straddles two rows of tiles and has left or stayed as one.

fn tile_product(row: u32, last: u32, col: u32, inner4: u32, stride4: u32) -> Tile {
  let lane = row + ((col / TILE_COLS4) & 3u);
  let p0 = x_base(min(lane, last));
  let p1 = x_base(min(lane + 4u, last));
  let p2 = x_base(min(lane + 8u, last));
  let p3 = x_base(min(lane + 12u, last));
  let stride_4 = 4u * stride4;
  var i = col;
  var j = col + 1u;
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
    let n = load_w_block(j, k, col + 1u, inner4, stride4);
    i += stride_4;
    j += stride_4;
    let own0 = load_x(p0, k);
    let x0 = quadBroadcast(own0, 0u);
    a0 += m * x0;
    b0 += n * x0;
    let x1 = quadBroadcast(own0, 1u);
    a1 += m * x1;
    b1 += n * x1;
    let x2 = quadBroadcast(own0, 2u);
    a2 += m * x2;
    b2 += n * x2;
    let x3 = quadBroadcast(own0, 3u);
    a3 += m * x3;
    b3 += n * x3;
    let own1 = load_x(p1, k);
    let x4 = quadBroadcast(own1, 0u);
    a4 += m * x4;
    b4 += n * x4;
    let x5 = quadBroadcast(own1, 1u);
    a5 += m * x5;
    b5 += n * x5;
    let x6 = quadBroadcast(own1, 2u);
    a6 += m * x6;
    b6 += n * x6;
    let x7 = quadBroadcast(own1, 3u);
    a7 += m * x7;
    b7 += n * x7;
    let own2 = load_x(p2, k);
    let x8 = quadBroadcast(own2, 0u);
    a8 += m * x8;
    b8 += n * x8;
    let x9 = quadBroadcast(own2, 1u);
    a9 += m * x9;
    b9 += n * x9;
    let x10 = quadBroadcast(own2, 2u);
    a10 += m * x10;
    b10 += n * x10;
    let x11 = quadBroadcast(own2, 3u);
    a11 += m * x11;
    b11 += n * x11;
    let own3 = load_x(p3, k);
    let x12 = quadBroadcast(own3, 0u);
    a12 += m * x12;
    b12 += n * x12;
    let x13 = quadBroadcast(own3, 1u);
    a13 += m * x13;
    b13 += n * x13;
    let x14 = quadBroadcast(own3, 2u);
    a14 += m * x14;
    b14 += n * x14;
    let x15 = quadBroadcast(own3, 3u);
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
