// Activations on 4 channels. ACTIVATION is a compile-time constant, so that one branch is left.
// WGSL has no erf and lets tanh be off by 1e-5: both are written out here, from exp2 and exp, and cannot overflow.

const ACTIVATION_GELU: u32 = 0u;
const ACTIVATION_TANH: u32 = 1u;
const ACTIVATION_IDENTITY: u32 = 2u;
const ACTIVATION_X_ERF: u32 = 3u;
const ACTIVATION_SILU: u32 = 4u;
const ACTIVATION_LEAKY_CLAMP: u32 = 5u;
const ACTIVATION_HARD_SIGMOID: u32 = 6u;

const GATE_SIGMOID: u32 = 0u;
const GATE_HARD_SIGMOID: u32 = 1u;
const GATE_NONE: u32 = 2u;

// Phi(-a) = exp2(-P(a)) for 0 <= a <= 6.5, P of degree 8 fitted to -log2 Phi(-a): |error of erf| <= 1.7e-7 in f32.
fn normal_tail(a: vec4f) -> vec4f {
  let q = min(a, vec4f(6.5));
  var p = vec4f(-2.7720634534489363e-6);
  p = fma(p, q, vec4f(3.862088487949222e-5));
  p = fma(p, q, vec4f(-1.825481012929231e-4));
  p = fma(p, q, vec4f(-1.458692131564021e-4));
  p = fma(p, q, vec4f(7.075470872223377e-3));
  p = fma(p, q, vec4f(-0.05250502750277519));
  p = fma(p, q, vec4f(-0.45920491218566895));
  p = fma(p, q, vec4f(-1.1511057615280151));
  p = fma(p, q, vec4f(-1.0));
  return select(exp2(p), vec4f(), a > vec4f(6.5));
}

// v * Phi(v), the exact (erf) form: the tanh form is off by 4.7e-4.
fn gelu(v: vec4f) -> vec4f {
  let a = abs(v);
  return max(v, vec4f()) - a * normal_tail(a);
}

// erf(v) / v / (2 / sqrt(pi)), s = v² <= 0.25
fn erf_series(s: vec4f) -> vec4f {
  var series = fma(s, vec4f(-7.5757576e-4), vec4f(4.6296296e-3));
  series = fma(s, series, vec4f(-0.023809524));
  series = fma(s, series, vec4f(0.1));
  series = fma(s, series, vec4f(-0.33333334));
  return fma(s, series, vec4f(1.0));
}

// v * erf(v); the series keeps the relative error small where 1 - 2 Phi would cancel.
fn x_erf(v: vec4f) -> vec4f {
  let a = abs(v);
  let s = min(v * v, vec4f(0.25));
  let near = 1.1283792 * s * erf_series(s);
  let far = a * (1.0 - 2.0 * normal_tail(1.4142135 * a));
  return select(far, near, a < vec4f(0.5));
}

fn hyperbolic_tangent(v: vec4f) -> vec4f {
  let a = abs(v);
  let s = min(v * v, vec4f(0.1225));
  var series = fma(s, vec4f(-8.863235e-3), vec4f(0.021869488));
  series = fma(s, series, vec4f(-0.053968254));
  series = fma(s, series, vec4f(0.13333334));
  series = fma(s, series, vec4f(-0.33333334));
  series = fma(s, series, vec4f(1.0));
  let e = exp(-2.0 * min(a, vec4f(20.0)));
  let far = (1.0 - e) / (1.0 + e);
  return select(sign(v) * far, v * series, a < vec4f(0.35));
}

fn sigmoid(v: vec4f) -> vec4f {
  return 1.0 / (1.0 + exp(-clamp(v, vec4f(-80.0), vec4f(80.0))));
}

fn hard_sigmoid(v: vec4f) -> vec4f {
  return clamp(v / 6.0 + 0.5, vec4f(), vec4f(1.0));
}

// PoM's: min(6, max(-0.1, leaky_relu(v))).
fn leaky_clamp(v: vec4f) -> vec4f {
  return clamp(max(v, 0.01 * v), vec4f(-0.1), vec4f(6.0));
}

// What the logits of a selection become: HoM's gates or PoM's.
fn gate(v: vec4f) -> vec4f {
  if (GATE == GATE_HARD_SIGMOID) {
    return hard_sigmoid(v);
  }
  return sigmoid(v);
}

fn activate(v: vec4f) -> vec4f {
  if (ACTIVATION == ACTIVATION_GELU) {
    return gelu(v);
  }
  if (ACTIVATION == ACTIVATION_TANH) {
    return hyperbolic_tangent(v);
  }
  if (ACTIVATION == ACTIVATION_X_ERF) {
    return x_erf(v);
  }
  if (ACTIVATION == ACTIVATION_SILU) {
    return v * sigmoid(v);
  }
  if (ACTIVATION == ACTIVATION_LEAKY_CLAMP) {
    return leaky_clamp(v);
  }
  if (ACTIVATION == ACTIVATION_HARD_SIGMOID) {
    return hard_sigmoid(v);
  }
  return v;
}
