// The part of @tensorflow/tfjs-backend-webgpu that the bench uses, so that the repository's types check without the peers being installed.
export interface WebGPUBackend {
  ensureCommandEncoderReady(): void;
  endComputePassEncoder(): void;
  /** Submits what was recorded so far; the pass must have ended. */
  submitQueue(): void;
}
