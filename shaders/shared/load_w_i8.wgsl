// Weights in signed bytes, one scale a channel: weight = byte / 127 * scale. [4 * inner4, outer] bytes, 4 outer channels an element, then the scales
// [outer] and the bias [outer] as f32. The scale multiplies the finished product.

alias WElement = u32;

const W_SCALED: bool = true;

// Steps of 4 rows that stay with one lane.
const W_GROUP4: u32 = 1u;

fn load_w(i: u32) -> vec4f {
  return unpack4x8snorm(w[i]);
}

// The 4 rows of w from 4 * k on, for 4 channels; i is the element of the first.
fn load_w_block(i: u32, k: u32, col: u32, inner4: u32, stride4: u32) -> mat4x4f {
  return mat4x4f(load_w(i), load_w(i + stride4), load_w(i + 2u * stride4), load_w(i + 3u * stride4));
}

fn w_floats(first: u32) -> vec4f {
  return vec4f(bitcast<f32>(w[first]), bitcast<f32>(w[first + 1u]), bitcast<f32>(w[first + 2u]), bitcast<f32>(w[first + 3u]));
}

fn w_bias(inner4: u32, stride4: u32, col: u32) -> vec4f {
  return w_floats(4u * inner4 * stride4 + 4u * stride4 + 4u * col);
}

fn w_scale(inner4: u32, stride4: u32, col: u32) -> vec4f {
  return w_floats(4u * inner4 * stride4 + 4u * col);
}
