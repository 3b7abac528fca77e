// The multiply-add rate of the adapter: eight independent chains of vec4f a lane, nothing loaded, one store at the end.
//
//   y  [invocations]    64 FLOPs a step and lane; STEPS is appended

@group(0) @binding(0) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  // Factors that the compiler cannot know, and under which the values stay bounded.
  let m = vec4f(0.5 + 0.001 * f32(id.x & 255u));
  let c = vec4f(0.25);
  var a0 = m;
  var a1 = m + 0.1;
  var a2 = m + 0.2;
  var a3 = m + 0.3;
  var a4 = m + 0.4;
  var a5 = m + 0.5;
  var a6 = m + 0.6;
  var a7 = m + 0.7;
  for (var i = 0u; i < STEPS; i++) {
    a0 = fma(a0, m, c);
    a1 = fma(a1, m, c);
    a2 = fma(a2, m, c);
    a3 = fma(a3, m, c);
    a4 = fma(a4, m, c);
    a5 = fma(a5, m, c);
    a6 = fma(a6, m, c);
    a7 = fma(a7, m, c);
  }
  y[id.x] = ((a0 + a1) + (a2 + a3)) + ((a4 + a5) + (a6 + a7));
}
