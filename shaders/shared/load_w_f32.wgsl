// Weights [4 * inner4 + 1, outer]: the last row is the bias. 4 outer channels an element.

alias WElement = vec4f;

const W_SCALED: bool = false;

// Steps of 4 rows that stay with one lane.
const W_GROUP4: u32 = 1u;

fn load_w(i: u32) -> vec4f {
  return w[i];
}

// The 4 rows of w from 4 * k on, for 4 channels; i is the element of the first.
fn load_w_block(i: u32, k: u32, col: u32, inner4: u32, stride4: u32) -> mat4x4f {
  return mat4x4f(load_w(i), load_w(i + stride4), load_w(i + 2u * stride4), load_w(i + 3u * stride4));
}

fn w_bias(inner4: u32, stride4: u32, col: u32) -> vec4f {
  return w[4u * inner4 * stride4 + col];
}

fn w_scale(inner4: u32, stride4: u32, col: u32) -> vec4f {
  return vec4f(1.0);
}
