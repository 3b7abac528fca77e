/**
 * The layer at its smallest, a build of its own whose objects do not go with those of other entries: `forward`, unmasked or `"causal"`, and states with
 * `append`, `query`, `step`, `clone` and `reset`, in f32. The rest throws. Every adapter gets the small register tile, without lanes, whatever its tuning.
 */
export { GpuLostError, GpuOutOfMemoryError, GpuUnavailableError, WeightsError } from "./errors.ts";
export { HomLayer } from "./layers/hom.ts";
export { HomState } from "./layers/hom_state.ts";
export { Gpu, requestGpu } from "./runtime/gpu.ts";
export { Tensor } from "./runtime/tensor.ts";
