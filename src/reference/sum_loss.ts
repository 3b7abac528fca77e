/** losses [rows] -> their sum, added to `initial`. */
export function sumLoss(losses: ArrayLike<number>, initial = 0): number {
  let sum = initial;
  for (let r = 0; r < losses.length; r++) sum += losses[r]!;
  return sum;
}
