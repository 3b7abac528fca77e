// Backward of random_features.wgsl as far as the products with the random vectors: from the gradients of the features to those of every w_il·x, which
// random_vectors_backward.wgsl goes on from.
//
//   favor               df_i = dφ_i φ_i                                      e_i = c·dφ_i φ_i, nothing for a query
//   rfa                 df_i = (dsin_i cos_i - dcos_i sin_i) / |x|           e_i = df_i (ω_i·x) / |x|²
//   maclaurin           df_il = s·dφ_i · the product without its factor l    e_i = c·dφ_i φ_i for the keys of the Gaussian kernel, s = exp(-c·|x|²/2)
//
// What all features of a query share cancels in attention, and so does its gradient: it counts as a constant.
//
//   x, w, counts      see random_features.wgsl
//   phi, dphi         [rows, H, features4]
//   factors           [n rows, H, levels + 1, vectors4]    df of every level, then e; of the rows from first_row on. A level has as many vec4s as its count
//
// One invocation owns 8 rows x 4 vectors of one head. A product without a factor is that of the factors before it, stored on the way up, times that of
// those after it, multiplied in on the way down: no division by a factor that may be 0. Cost: 4·n·H·d FLOPs for each vector.
// Uses eight_rows. FEATURE_MAP is a compile-time constant.

struct Shape {
  rows: u32,
  first_row: u32,
  n_rows: u32,
  heads: u32,
  head4: u32,
  x_stride4: u32,
  vectors4: u32,
  features4: u32,
  levels: u32,
  has_length: u32,
  length_scale: f32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<vec4f>;
@group(0) @binding(3) var<storage, read> counts: array<u32>;
@group(0) @binding(4) var<storage, read> phi: array<vec4f>;
@group(0) @binding(5) var<storage, read> dphi: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> factors: array<vec4f>;

const FAVOR: u32 = 0u;
const RFA: u32 = 1u;

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

// w·x + b of 8 rows and the 4 vectors of a column.
fn factor(rows: EightRows, level: u32, column: u32) -> Eight {
  let stride4 = shape.heads * shape.vectors4;
  var i = level * (4u * shape.head4 + 1u) * stride4 + column;
  var z = Eight();
  for (var k = 0u; k < shape.head4; k++) {
    z = eight_add_product(z, load_x(rows, k), mat4x4f(w[i], w[i + stride4], w[i + 2u * stride4], w[i + 3u * stride4]));
    i += 4u * stride4;
  }
  return eight_add(z, w[i]);
}

fn squared_lengths(rows: EightRows) -> EightSums {
  var sums = EightSums();
  for (var k = 0u; k < shape.head4; k++) {
    let v = load_x(rows, k);
    sums = eight_add_dots(sums, v, v);
  }
  return sums;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  var index = id.x + id.y * grid.x * WORKGROUP_SIZE;
  let vectors4 = shape.vectors4;
  let heads = shape.heads;
  let levels = shape.levels;
  let col = index % vectors4;
  index /= vectors4;
  let head = index % heads;
  let local_row = index / heads * 8u;
  if (local_row >= shape.n_rows) {
    return;
  }
  let row = shape.first_row + local_row;
  let rows = eight_rows(head * shape.head4, row, shape.rows - 1u, shape.x_stride4);
  let column = head * vectors4 + col;
  let out_step = heads * (levels + 1u) * vectors4;
  let out_base = local_row * out_step + head * (levels + 1u) * vectors4 + col;
  let in_base = (row * heads + head) * shape.features4;
  let in_step = heads * shape.features4;
  let n_rows = min(8u, shape.n_rows - local_row);
  let has_length = shape.has_length != 0u;
  var lengths = EightSums();
  if (FEATURE_MAP == RFA || (FEATURE_MAP > RFA && has_length)) {
    lengths = squared_lengths(rows);
  }
  if (FEATURE_MAP == RFA) {
    let z = factor(rows, 0u, column);
    for (var r = 0u; r < n_rows; r++) {
      let i = in_base + r * in_step + 2u * col;
      let length2 = eight_sum(lengths, r);
      let inverse = select(0.0, inverseSqrt(length2), length2 > 0.0);
      let df = (dphi[i] * phi[i + 1u] - dphi[i + 1u] * phi[i]) * inverse;
      factors[out_base + r * out_step] = df;
      factors[out_base + r * out_step + vectors4] = df * eight_row(z, r) * inverse * inverse;
    }
    return;
  }
  for (var r = 0u; r < n_rows; r++) {
    let i = in_base + r * in_step + col;
    let product = dphi[i] * phi[i];
    if (FEATURE_MAP == FAVOR) {
      factors[out_base + r * out_step] = product;
    }
    if (has_length) {
      factors[out_base + r * out_step + levels * vectors4] = product * shape.length_scale;
    }
  }
  if (FEATURE_MAP == FAVOR) {
    return;
  }
  var level = 0u;
  var before = eight_of(vec4f(1.0));
  for (; level < levels; level++) {
    if (col >= counts[level * heads + head]) {
      break;
    }
    for (var r = 0u; r < n_rows; r++) {
      factors[out_base + r * out_step + level * vectors4] = eight_row(before, r);
    }
    before = eight_multiply(before, factor(rows, level, column));
  }
  var after = eight_of(vec4f(1.0));
  for (; level > 0u; level--) {
    for (var r = 0u; r < n_rows; r++) {
      let i = out_base + r * out_step + (level - 1u) * vectors4;
      var shared_part = 1.0;
      if (has_length) {
        shared_part = exp(-0.5 * shape.length_scale * eight_sum(lengths, r));
      }
      factors[i] = factors[i] * eight_row(after, r) * dphi[in_base + r * in_step + col] * shared_part;
    }
    if (level > 1u) {
      after = eight_multiply(after, factor(rows, level - 1u, column));
    }
  }
}
