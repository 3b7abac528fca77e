// Weights as in load_w_f32.wgsl, in f16: half the memory, and half the traffic where that is what a kernel waits for. Unpacked by core WGSL: no
// feature is needed, and sums stay f32.

alias WElement = vec2u;

const W_SCALED: bool = false;

// Steps of 4 rows that stay with one lane.
const W_GROUP4: u32 = 1u;

fn load_w(i: u32) -> vec4f {
  let v = w[i];
  return vec4f(unpack2x16float(v.x), unpack2x16float(v.y));
}

// The 4 rows of w from 4 * k on, for 4 channels; i is the element of the first.
fn load_w_block(i: u32, k: u32, col: u32, inner4: u32, stride4: u32) -> mat4x4f {
  return mat4x4f(load_w(i), load_w(i + stride4), load_w(i + 2u * stride4), load_w(i + 3u * stride4));
}

fn w_bias(inner4: u32, stride4: u32, col: u32) -> vec4f {
  return load_w(4u * inner4 * stride4 + col);
}

fn w_scale(inner4: u32, stride4: u32, col: u32) -> vec4f {
  return vec4f(1.0);
}
