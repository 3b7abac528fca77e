/** No adapter, no device, or no WebGPU at all; the message says what to install or enable. */
export class GpuUnavailableError extends Error {
  override name = "GpuUnavailableError";
}

/** The device was lost (driver reset, tab sent to the background, `destroy()` by its owner). Request a new one and upload again. */
export class GpuLostError extends Error {
  override name = "GpuLostError";
}

/** The device refused an allocation. Nothing was computed. */
export class GpuOutOfMemoryError extends Error {
  override name = "GpuOutOfMemoryError";
}

/** A weight file or a set of parameters that cannot be used: truncated, mislabelled, missing, of the wrong shape, or not finite. */
export class WeightsError extends Error {
  override name = "WeightsError";
}

/** A training step whose loss or gradient was not finite. It changed no weight, and neither does a later step until the trainer recovers. */
export class TrainingDivergedError extends Error {
  override name = "TrainingDivergedError";
}
