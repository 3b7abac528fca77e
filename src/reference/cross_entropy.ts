import { checkInteger } from "../checks.ts";
import { checkLength, rowCount } from "./arrays.ts";

/**
 * Cross-entropy of logits [rows, V] for targets [rows]: each row's loss times `weight` (default 1) and the gradient of their sum, [rows] and [rows, V].
 * A row whose target is V or more has a loss and a gradient of 0.
 */
export function crossEntropy(
  logits: ArrayLike<number>,
  targets: ArrayLike<number>,
  sizes: { readonly vocabulary: number; readonly weight?: number },
): { losses: Float64Array; gradients: Float64Array } {
  const where = "crossEntropy";
  const vocabulary = checkInteger(where, "vocabulary", sizes.vocabulary, 1);
  const rows = rowCount(where, "logits", logits, vocabulary);
  checkLength(where, "targets", targets, rows, "rows");
  const { weight = 1 } = sizes;
  const losses = new Float64Array(rows);
  const gradients = new Float64Array(rows * vocabulary);
  for (let r = 0; r < rows; r++) {
    const target = checkInteger(where, `targets[${r}]`, targets[r], 0);
    if (target >= vocabulary) continue;
    const base = r * vocabulary;
    let largest = -Infinity;
    for (let i = 0; i < vocabulary; i++) largest = Math.max(largest, logits[base + i]!);
    let sum = 0;
    for (let i = 0; i < vocabulary; i++) sum += Math.exp(logits[base + i]! - largest);
    losses[r] = weight * (Math.log(sum) + (largest - logits[base + target]!));
    for (let i = 0; i < vocabulary; i++) gradients[base + i] = weight * (Math.exp(logits[base + i]! - largest) / sum - Number(i === target));
  }
  return { losses, gradients };
}
