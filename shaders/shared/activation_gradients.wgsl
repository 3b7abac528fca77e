// Derivatives of the activations on 4 channels. Needs activations.wgsl. Differences that would cancel are written without them, and arguments
// are bounded where their products would overflow.

// Φ(v) + v φ(v), which for v < 0 is Φ(-a) - a φ(a), a = |v|, and 1 minus that for v > 0. Both terms vanish long before 15.
fn gelu_gradient(v: vec4f) -> vec4f {
  let a = min(abs(v), vec4f(15.0));
  let tail = normal_tail(a) - a * (0.3989423 * exp(-0.5 * a * a));
  return select(tail, 1.0 - tail, v > vec4f());
}

// erf(v) + v erf'(v)
fn x_erf_gradient(v: vec4f) -> vec4f {
  let a = min(abs(v), vec4f(10.0));
  let slope = 1.1283792 * exp(-a * a);
  let near = a * (1.1283792 * erf_series(min(a * a, vec4f(0.25))) + slope);
  let far = fma(a, slope, 1.0 - 2.0 * normal_tail(1.4142135 * a));
  return sign(v) * select(far, near, a < vec4f(0.5));
}

// 1 - tanh²(v) = 4 e / (1 + e)², e = exp(-2 |v|)
fn hyperbolic_tangent_gradient(v: vec4f) -> vec4f {
  let e = exp(-2.0 * min(abs(v), vec4f(40.0)));
  let s = 1.0 + e;
  return 4.0 * e / (s * s);
}

fn silu_gradient(v: vec4f) -> vec4f {
  let b = clamp(v, vec4f(-80.0), vec4f(80.0));
  return sigmoid(b) * fma(b, sigmoid(-b), vec4f(1.0));
}

// The clamps pass gradients at their very ends, and 0 belongs to the lower slope, as in the original.
fn leaky_clamp_gradient(v: vec4f) -> vec4f {
  let slope = select(vec4f(0.01), vec4f(1.0), v > vec4f());
  return select(slope, vec4f(), (v > vec4f(6.0)) | (v < vec4f(-10.0)));
}

fn activate_gradient(v: vec4f) -> vec4f {
  if (ACTIVATION == ACTIVATION_GELU) {
    return gelu_gradient(v);
  }
  if (ACTIVATION == ACTIVATION_TANH) {
    return hyperbolic_tangent_gradient(v);
  }
  if (ACTIVATION == ACTIVATION_X_ERF) {
    return x_erf_gradient(v);
  }
  if (ACTIVATION == ACTIVATION_SILU) {
    return silu_gradient(v);
  }
  if (ACTIVATION == ACTIVATION_LEAKY_CLAMP) {
    return leaky_clamp_gradient(v);
  }
  return vec4f(1.0);
}
