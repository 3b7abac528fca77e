/** The sum of squares of all gradients, and whether all of them are finite. */
export function gradientNorm(gradients: ArrayLike<number>): { squares: number; finite: boolean } {
  let squares = 0;
  let finite = true;
  for (let i = 0; i < gradients.length; i++) {
    squares += gradients[i]! * gradients[i]!;
    finite &&= Number.isFinite(gradients[i]);
  }
  return { squares, finite };
}
