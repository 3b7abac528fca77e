// From the gradients of products with random vectors to those of what they were multiplied with.
//
//   dx = Σ over levels l, vectors i of df_il w_il - x Σ_i e_i
//
//   factors      [n rows, H, levels + 1, vectors4]    df and e, of random_features_backward.wgsl
//   w, counts    see random_features.wgsl
//   x            [rows, ...]                          H heads of head4 vec4s, rows x_stride4 apart; read with has_length, like e
//   dx           [rows, ...]                          likewise, rows dx_stride4 apart; of the rows from first_row on
//
// One invocation owns 8 rows x 4 channels of one head. Cost: 2·n·H·d FLOPs for each vector, reads the factors d / 4 times.
// Uses eight_rows.

struct Shape {
  first_row: u32,
  n_rows: u32,
  heads: u32,
  head4: u32,
  x_stride4: u32,
  dx_stride4: u32,
  vectors4: u32,
  levels: u32,
  has_length: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> factors: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<vec4f>;
@group(0) @binding(3) var<storage, read> counts: array<u32>;
@group(0) @binding(4) var<storage, read> x: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> dx: array<vec4f>;

fn load_factors(rows: EightRows, k: u32) -> Eight {
  return Eight(
    factors[rows.upper.x + k],
    factors[rows.upper.y + k],
    factors[rows.upper.z + k],
    factors[rows.upper.w + k],
    factors[rows.lower.x + k],
    factors[rows.lower.y + k],
    factors[rows.lower.z + k],
    factors[rows.lower.w + k],
  );
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  var index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let heads = shape.heads;
  let head4 = shape.head4;
  let vectors4 = shape.vectors4;
  let levels = shape.levels;
  let col = index % head4;
  index /= head4;
  let head = index % heads;
  let row = index / heads * 8u;
  if (row >= shape.n_rows) {
    return;
  }
  let in_step = heads * (levels + 1u) * vectors4;
  let rows = eight_rows(head * (levels + 1u) * vectors4, row, shape.n_rows - 1u, in_step);
  let stride4 = heads * vectors4;
  var z = Eight();
  for (var level = 0u; level < levels; level++) {
    let i = (level * (4u * head4 + 1u) + 4u * col) * stride4 + head * vectors4;
    for (var k = 0u; k < counts[level * heads + head]; k++) {
      let m = mat4x4f(w[i + k], w[i + stride4 + k], w[i + 2u * stride4 + k], w[i + 3u * stride4 + k]);
      z = eight_add_product(z, load_factors(rows, level * vectors4 + k), transpose(m));
    }
  }
  var sums = EightSums();
  if (shape.has_length != 0u) {
    for (var k = 0u; k < vectors4; k++) {
      sums = eight_add_dots(sums, load_factors(rows, levels * vectors4 + k), eight_of(vec4f(1.0)));
    }
  }
  for (var r = 0u; r < min(8u, shape.n_rows - row); r++) {
    let t = shape.first_row + row + r;
    var value = eight_row(z, r);
    if (shape.has_length != 0u) {
      value -= eight_sum(sums, r) * x[t * shape.x_stride4 + head * head4 + col];
    }
    dx[t * shape.dx_stride4 + head * head4 + col] = value;
  }
}
