// One token of a stream for every batch row: moments of the token, added to the state, then the gated mean. With linear.wgsl for the output
// projection, a layer's whole decoding step is two dispatches that read each weight once.
//
//   sum += m(x) - m(x_leaving);   rows[b, c] = gate(x · W_s[c]ᵀ + b_s[c]) · sum[c] / count_b
//
// Layers whose gates are computed apart (apply_gates.wgsl) take the mean as it is. With `decayed`, earlier tokens fade as in decay_moments.wgsl.
//
//   x       [batch, D]  the tokens, or a ring of the last tokens when there is a window: rows entry[1] on, those that leave from entry[2] on
//   w       [D + 1, 2·k·E]: ho_proj and se_proj, see moments.wgsl
//   entry   see state_levels.wgsl; [1] first row, [2] first leaving row, [3] whether tokens leave, [4 + b] tokens seen (f32 bits)
//   constants, positions: see polynomial.wgsl; HoM reads constants if decayed: the factors γ [E]
//   levels  [LEVELS, batch, k·E], or the `running` of decay_moments.wgsl      rows [batch, k·E]
//
// One invocation, or the lanes of lanes.wgsl together, own 4 channels of every order for TILE_ROWS batch rows. Cost: reads (2·D + 2)·k·E weights and the state's sum, writes the state's
// sum; 4·B·D·k·E FLOPs, 6·B·D·k·E with a window.
// Uses expand, tile, lanes, load_x, load_w, activations, state_levels, decay.

struct Shape {
  inner: u32,
  inner4: u32,
  x_offset: u32,
  x_stride: u32,
  x_span: u32,
  x_pitch: u32,
  order: u32,
  expand4: u32,
  stride4: u32,
  w_stride4: u32,
  batch: u32,
  degree: u32,
  group4: u32,
  positions_offset: u32,
  rotations: u32,
  decayed: u32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<XElement>;
@group(0) @binding(2) var<storage, read> w: array<WElement>;
@group(0) @binding(3) var<storage, read> entry: array<u32>;
@group(0) @binding(4) var<storage, read> constants: array<vec4f>;
@group(0) @binding(5) var<storage, read> positions: array<u32>;
@group(0) @binding(6) var<storage, read_write> levels: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> rows: array<vec4f>;

// (s + m) / n of a stream whose tokens fade.
fn add_decaying(row: u32, col: u32, value: vec4f) -> vec4f {
  let stride4 = shape.stride4;
  let at = 3u * row * stride4 + col;
  let s = decay_add(Decaying(levels[at], levels[at + stride4], levels[at + 2u * stride4]), constants[col % shape.expand4], value);
  levels[at] = s.base;
  levels[at + stride4] = s.sum;
  levels[at + 2u * stride4] = s.count;
  return (s.base + s.sum) / s.count;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let index = lanes_tile(id.x + id.y * grid.x * WORKGROUP_SIZE);
  let stride4 = shape.stride4;
  let channel = index % shape.expand4;
  let row = index / shape.expand4 * TILE_ROWS;
  let last = shape.batch - 1u;
  let inside = row <= last;
  if (!lanes_run(inside)) {
    return;
  }
  let count = select(0u, min(TILE_ROWS, shape.batch - row), inside);
  let full = entry[0];
  let first = entry[1];
  let leaving = entry[2];
  let leaves = entry[3] != 0u;
  var e = expansion_of(tile_ones());
  var e_leaving = e;
  for (var i = 0u; i < shape.order; i += EXPANDED) {
    e = expand(e, first + row, first + last, i, channel);
    if (leaves) {
      e_leaving = expand(e_leaving, leaving + row, leaving + last, i, channel);
    }
    for (var j = 0u; j < EXPANDED; j++) {
      let col = (i + j) * shape.expand4 + channel;
      var change = expanded(e, j);
      if (leaves) {
        change = tile_subtract(change, expanded(e_leaving, j));
      }
      var gates = tile_ones();
      if (GATE != GATE_NONE) {
        gates = tile_gate(tile_linear(first + row, first + last, stride4 + col, shape.inner4, shape.w_stride4));
      }
      for (var r = lanes_first(); r < count; r += SPLIT) {
        let at = (row + r) * stride4 + col;
        let gate = tile_row(gates, r, 0u);
        let value = tile_row(change, r, 0u);
        if (shape.decayed != 0u) {
          rows[at] = gate * add_decaying(row + r, col, value);
        } else {
          let sum = add_to_levels(at, shape.batch * stride4, full, value);
          rows[at] = gate * sum / bitcast<f32>(entry[4u + row + r]);
        }
      }
    }
  }
}
