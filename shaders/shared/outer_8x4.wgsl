// A register tile of 8 inputs x 4 outputs of a weight's gradient: the sum over rows of outer products, one named vec4f an input. Needs a load_x
// and a load_dy file and, from the kernel, run_end.

const TILE_ROWS4: u32 = 2u;
const TILE_COLS4: u32 = 1u;

struct OuterTile {
  r0: vec4f,
  r1: vec4f,
  r2: vec4f,
  r3: vec4f,
  r4: vec4f,
  r5: vec4f,
  r6: vec4f,
  r7: vec4f,
}

// sum over rows [start, end) of x[row, 4 k + r] * dy[row, col]. An input past the last repeats it, so that every load is in bounds.
fn tile_outer(start: u32, end: u32, k: u32, col: u32) -> OuterTile {
  let k1 = min(k + 1u, shape.inner4 - 1u);
  var r0 = vec4f();
  var r1 = vec4f();
  var r2 = vec4f();
  var r3 = vec4f();
  var r4 = vec4f();
  var r5 = vec4f();
  var r6 = vec4f();
  var r7 = vec4f();
  var row = start;
  while (row < end) {
    var p = x_base(row);
    var q = dy_base(row);
    let stop = run_end(row, end);
    for (; row < stop; row++) {
      let d = load_dy(q, col);
      let a = load_x(p, k);
      r0 += a.x * d;
      r1 += a.y * d;
      r2 += a.z * d;
      r3 += a.w * d;
      let b = load_x(p, k1);
      r4 += b.x * d;
      r5 += b.y * d;
      r6 += b.z * d;
      r7 += b.w * d;
      p += shape.x_stride;
      q += shape.dy_stride;
    }
  }
  return OuterTile(r0, r1, r2, r3, r4, r5, r6, r7);
}

fn tile_row(z: OuterTile, r: u32, c: u32) -> vec4f {
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
