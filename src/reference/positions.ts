import { checkInteger, rangeError } from "../checks.ts";

/** freqs [D/2]: exp(-2·ln(4·contextLength)·j / D), what an HLM checkpoint stores (rounded to f32) under `freqs`. */
export function positionFrequencies(dim: number, contextLength: number): Float64Array {
  const where = "positionFrequencies";
  checkInteger(where, "contextLength", contextLength, 1);
  if (checkInteger(where, "dim", dim, 2) % 2 !== 0) throw rangeError(where, "dim", "be even", dim);
  return Float64Array.from({ length: dim / 2 }, (_, j) => Math.exp((-2 * Math.log(4 * contextLength) * j) / dim));
}

/** Features of positions p [rows]: [cos(p·f) | sin(p·f)], freqs [F] -> [rows, 2F]. */
export function positions(values: ArrayLike<number>, freqs: ArrayLike<number>): Float64Array {
  const count = freqs.length;
  const out = new Float64Array(values.length * 2 * count);
  for (let r = 0; r < values.length; r++) {
    for (let j = 0; j < count; j++) {
      const angle = values[r]! * freqs[j]!;
      out[r * 2 * count + j] = Math.cos(angle);
      out[r * 2 * count + count + j] = Math.sin(angle);
    }
  }
  return out;
}
