import { checkInteger, rangeError, raw } from "../checks.ts";
import { checkLength } from "./arrays.ts";

/**
 * x = table[ids] + positions: tokenIds [B, n], table [V, D], positions [n, D] (shared by the batch) or [B, n, D] -> x [B, n, D].
 */
export function embed(
  tokenIds: ArrayLike<number>,
  table: ArrayLike<number>,
  positions: ArrayLike<number> | undefined,
  sizes: { batch: number; length: number; vocabSize: number; dim: number },
): Float64Array {
  const where = "embed";
  const batch = checkInteger(where, "batch", sizes.batch, 1);
  const length = checkInteger(where, "length", sizes.length, 0);
  const vocabSize = checkInteger(where, "vocabSize", sizes.vocabSize, 1);
  const dim = checkInteger(where, "dim", sizes.dim, 1);
  checkLength(where, "tokenIds", tokenIds, batch * length, "B·n");
  checkLength(where, "table", table, vocabSize * dim, "V·D");
  if (positions && positions.length !== length * dim && positions.length !== batch * length * dim) {
    throw rangeError(where, "positions", `hold n·D = ${length * dim} or B·n·D = ${batch * length * dim} numbers`, raw(`${positions.length}`));
  }
  const out = new Float64Array(batch * length * dim);
  for (let i = 0; i < batch * length; i++) {
    const id = checkInteger(where, `tokenIds[${i}]`, tokenIds[i], 0, vocabSize - 1);
    for (let d = 0; d < dim; d++) {
      // positions.length is n·D or B·n·D: the remainder serves both
      out[i * dim + d] = table[id * dim + d]! + (positions ? positions[(i * dim + d) % positions.length]! : 0);
    }
  }
  return out;
}
