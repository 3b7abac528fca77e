// Numbers of one optimiser step, written by the host before it. Rates instead of betas: 1 - 0.999 in f32 is off by 5e-5.

struct Settings {
  // 1 - beta1 and 1 - beta2.
  rate1: f32,
  rate2: f32,
  // lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t), t the number of the step from 1 on.
  step_size: f32,
  root_correction: f32,
  eps: f32,
  // lr times the weight decay.
  decay: f32,
  // Largest norm of the gradients; 0 for none.
  clip: f32,
}
