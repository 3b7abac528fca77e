// Weights in 4 bits, one scale for every 32 rows of a channel: weight = (nibble - 8) * scale. [2 * inner4, outer] words, each with 4 channels of 2
// rows; then the scales in f16 [ceil(inner / 32), outer], then the bias [outer] as f32.

alias WElement = u32;

const W_SCALED: bool = false;

// Rows of 4 that share a scale.
const W_GROUP4: u32 = 8u;

fn w_nibbles(word: u32) -> vec4f {
  return vec4f((vec4u(word) >> vec4u(0u, 4u, 8u, 12u)) & vec4u(15u)) - 8.0;
}

// The 4 rows of w from 4 * k on, for 4 channels.
fn load_w_block(i: u32, k: u32, col: u32, inner4: u32, stride4: u32) -> mat4x4f {
  let upper = w[2u * k * stride4 + col];
  let lower = w[(2u * k + 1u) * stride4 + col];
  let s = 2u * (inner4 * stride4 + k / W_GROUP4 * stride4 + col);
  let scale = vec4f(unpack2x16float(w[s]), unpack2x16float(w[s + 1u]));
  return mat4x4f(
    scale * w_nibbles(upper),
    scale * w_nibbles(upper >> 16u),
    scale * w_nibbles(lower),
    scale * w_nibbles(lower >> 16u),
  );
}

fn w_bias(inner4: u32, stride4: u32, col: u32) -> vec4f {
  let i = 2u * (inner4 + (inner4 + W_GROUP4 - 1u) / W_GROUP4) * stride4 + 4u * col;
  return vec4f(bitcast<f32>(w[i]), bitcast<f32>(w[i + 1u]), bitcast<f32>(w[i + 2u]), bitcast<f32>(w[i + 3u]));
}

fn w_scale(inner4: u32, stride4: u32, col: u32) -> vec4f {
  return vec4f(1.0);
}
