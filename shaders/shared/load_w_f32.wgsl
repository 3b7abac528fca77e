// Weights [4 * inner4 + 1, outer]: the last row is the bias. 4 outer channels an element.

alias WElement = vec4f;

const W_SCALED: bool = false;

fn load_w(i: u32) -> vec4f {
  return w[i];
}

fn w_bias(inner4: u32, stride4: u32, col: u32) -> vec4f {
  return w[4u * inner4 * stride4 + col];
}

fn w_scale(inner4: u32, stride4: u32, col: u32) -> vec4f {
  return vec4f(1.0);
}
