// What is known of a training step. Flags come from bits of numbers: comparisons with infinity or NaN may be assumed away.

struct Status {
  // L2 norm of all gradients, and what they are multiplied by to clip it.
  norm: f32,
  scale: f32,
  // 1 where loss, gradients and norm are finite; halted stays 1 once that was 0, until the host resets it.
  finite: u32,
  halted: u32,
  loss: f32,
}

fn is_finite(v: f32) -> bool {
  return (bitcast<u32>(v) & 0x7f800000u) != 0x7f800000u;
}
