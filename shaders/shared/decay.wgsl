// The sum of a stream whose moments fade, in two parts: one takes 64 additions before it is added to the other. Where nothing fades, a running sum of
// a million tokens would lose 1.7e-5.

struct Decaying {
  base: vec4f,
  sum: vec4f,
  count: vec4f,
}

fn decay_add(s: Decaying, factor: vec4f, value: vec4f) -> Decaying {
  let base = s.base * factor;
  let sum = fma(factor, s.sum, value);
  let count = fma(factor, s.count, vec4f(1.0));
  // Counts are whole where nothing fades.
  let full = count % 64.0 == vec4f();
  return Decaying(select(base, base + sum, full), select(sum, vec4f(), full), count);
}
