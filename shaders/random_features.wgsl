// Random features of queries or keys, whose dot products estimate a kernel.
//
//   favor               φ_i = s·exp(ω_i·x - c·|x|²/2)                      a query has 3·√c·|x| in place of c·|x|²/2
//   rfa                 φ = s·[sin(ω_i·x/|x|), cos(ω_i·x/|x|)]
//   maclaurin_exp       φ_i = Π over levels l of (w_il·x + b_il)
//   maclaurin_gaussian  φ_i = the same times exp(-c·|x|²/2)                 a query lacks that factor
//
// What all features of a query share cancels in attention: left out where it is, long queries do not underflow. Exponents end at 80.
//
//   x       [rows, ...]                          H heads of head4 vec4s, rows x_stride4 apart
//   w       [levels, 4·head4 + 1, H·vectors4]    random vectors (4 a vec4), scaled, transposed, then b; favor and rfa have one level and b = 0
//   counts  [levels, H]                          how many vec4s of vectors a level still has: those of the highest degree come first
//   phi     [rows, H, features4]                 zeros in the padding; rfa has 4 sines, then the 4 cosines of the same vectors
//
// One invocation owns 8 rows x 8 vectors of one head. Cost: reads rows·H·d and the vectors, writes rows·H·R; 2·rows·H·d FLOPs for each vector.
// Uses eight_rows. FEATURE_MAP is a compile-time constant.

struct Shape {
  rows: u32,
  heads: u32,
  head4: u32,
  x_stride4: u32,
  vectors: u32,
  vectors4: u32,
  features4: u32,
  levels: u32,
  as_query: u32,
  length_scale: f32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<vec4f>;
@group(0) @binding(3) var<storage, read> counts: array<u32>;
@group(0) @binding(4) var<storage, read_write> phi: array<vec4f>;

const FAVOR: u32 = 0u;
const RFA: u32 = 1u;
const MACLAURIN_GAUSSIAN: u32 = 3u;

fn load_x(rows: EightRows, k: u32) -> Eight {
  return Eight(
    x[rows.upper.x + k],
    x[rows.upper.y + k],
    x[rows.upper.z + k],
    x[rows.upper.w + k],
    x[rows.lower.x + k],
    x[rows.lower.y + k],
    x[rows.lower.z + k],
    x[rows.lower.w + k],
  );
}

fn load_w(i: u32, stride4: u32) -> mat4x4f {
  return mat4x4f(w[i], w[i + stride4], w[i + 2u * stride4], w[i + 3u * stride4]);
}

// Sine and cosine of any moderate angle, to 1e-7: WGSL's own may be off by 5e-4. (Reduction by π/2 in three parts, then series for |r| <= π/4.)
struct SinCos {
  sin: vec4f,
  cos: vec4f,
}

fn sin_cos(angle: vec4f) -> SinCos {
  let n = round(angle * 0.63661977);
  let r = fma(n, vec4f(-7.5497894e-8), fma(n, vec4f(-4.837513e-4), fma(n, vec4f(-1.5703125), angle)));
  let r2 = r * r;
  let s = fma(r * r2, fma(r2, fma(r2, vec4f(-1.9515296e-4), vec4f(8.332161e-3)), vec4f(-0.16666655)), r);
  let c = fma(r2 * r2, fma(r2, fma(r2, vec4f(2.4433157e-5), vec4f(-1.3887316e-3)), vec4f(4.1666646e-2)), fma(r2, vec4f(-0.5), vec4f(1.0)));
  let quarter = vec4u(vec4i(n)) & vec4u(3u);
  let swapped = (quarter & vec4u(1u)) == vec4u(1u);
  let sine = select(s, c, swapped);
  let cosine = select(c, s, swapped);
  return SinCos(select(sine, -sine, quarter >= vec4u(2u)), select(cosine, -cosine, ((quarter + 1u) & vec4u(2u)) != vec4u()));
}

// Zero beyond the last vector.
fn kept(value: vec4f, first: u32) -> vec4f {
  return select(vec4f(), value, vec4u(first, first + 1u, first + 2u, first + 3u) < vec4u(shape.vectors));
}

// Four vectors of one row: z = w·x, length2 = |x|².
fn store(row_base: u32, col: u32, z: vec4f, length2: f32) {
  let scaled2 = length2 * shape.length_scale;
  if (FEATURE_MAP == FAVOR) {
    let shared_part = select(0.5 * scaled2, 3.0 * sqrt(scaled2), shape.as_query != 0u);
    phi[row_base + col] = kept(shape.scale * exp(min(z - shared_part, vec4f(80.0))), 4u * col);
  } else if (FEATURE_MAP == RFA) {
    let angles = sin_cos(z * select(0.0, inverseSqrt(length2), length2 > 0.0));
    phi[row_base + 2u * col] = kept(shape.scale * angles.sin, 4u * col);
    phi[row_base + 2u * col + 1u] = kept(shape.scale * angles.cos, 4u * col);
  } else if (FEATURE_MAP == MACLAURIN_GAUSSIAN && shape.as_query == 0u) {
    phi[row_base + col] = z * exp(-0.5 * scaled2);
  } else {
    phi[row_base + col] = z;
  }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  var index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let vectors4 = shape.vectors4;
  let heads = shape.heads;
  let head4 = shape.head4;
  let pairs = (vectors4 + 1u) / 2u;
  let col = index % pairs * 2u;
  index /= pairs;
  let head = index % heads;
  let row = index / heads * 8u;
  if (row >= shape.rows) {
    return;
  }
  let stride4 = heads * vectors4;
  let next = min(col + 1u, vectors4 - 1u);
  let rows = eight_rows(head * head4, row, shape.rows - 1u, shape.x_stride4);
  var a = eight_of(vec4f(1.0));
  var b = a;
  var lengths = EightSums();
  for (var level = 0u; level < shape.levels; level++) {
    if (col >= counts[level * heads + head]) {
      break;
    }
    var i = level * (4u * head4 + 1u) * stride4 + head * vectors4;
    var p = Eight();
    var q = Eight();
    lengths = EightSums();
    for (var k = 0u; k < head4; k++) {
      let v = load_x(rows, k);
      p = eight_add_product(p, v, load_w(i + col, stride4));
      q = eight_add_product(q, v, load_w(i + next, stride4));
      lengths = eight_add_dots(lengths, v, v);
      i += 4u * stride4;
    }
    a = eight_multiply(a, eight_add(p, w[i + col]));
    b = eight_multiply(b, eight_add(q, w[i + next]));
  }
  for (var r = 0u; r < min(8u, shape.rows - row); r++) {
    let base = ((row + r) * heads + head) * shape.features4;
    store(base, col, eight_row(a, r), eight_sum(lengths, r));
    if (col + 1u < vectors4) {
      store(base, col + 1u, eight_row(b, r), eight_sum(lengths, r));
    }
  }
}
