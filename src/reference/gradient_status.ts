/** What is known of a training step before its weights change. */
export interface GradientStatus {
  readonly norm: number;
  /** What gradients are multiplied by, so that their norm is at most `clipNorm`. */
  readonly scale: number;
  readonly finite: boolean;
  /** This step or one before was not finite. */
  readonly halted: boolean;
}

/** Norm, clipping as torch.nn.utils.clip_grad_norm_ does it, and finiteness. `clipNorm` may be Infinity. */
export function gradientStatus(
  gradients: { readonly squares: number; readonly finite: boolean },
  args: { readonly loss: number; readonly clipNorm: number; readonly halted?: boolean },
): GradientStatus {
  const norm = Math.sqrt(gradients.squares);
  const finite = gradients.finite && Number.isFinite(norm) && Number.isFinite(args.loss);
  return { norm, scale: Math.min(1, args.clipNorm / (norm + 1e-6)), finite, halted: !finite || args.halted === true };
}
