import { ZERO_ABSOLUTE } from "./tolerances.ts";

export interface CompareOptions {
  /** Bound on ‖actual - expected‖ / ‖expected‖; take it from tolerances.ts. */
  readonly relL2: number;
  /** The compared quantity, for the message. */
  readonly what: string;
  /** Which adapter computed `actual`. */
  readonly adapter?: string | undefined;
  /** Prints the worst index as coordinates. */
  readonly shape?: readonly number[] | undefined;
  /** Bound on |actual| where everything expected is 0. */
  readonly absolute?: number | undefined;
}

/**
 * Fails unless `actual` is as long as `expected`, wholly finite, and close in relative L2 norm. Returns the error: relative L2, or the
 * largest |actual| where everything expected is 0. A non-finite `expected` is a mistake in the test and fails as well.
 */
export function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, options: CompareOptions): number {
  const { relL2, what, adapter, shape, absolute = ZERO_ABSOLUTE } = options;
  const on = adapter ? ` on ${adapter}` : "";
  const fail = (message: string): never => {
    throw new Error(`${what}${on}: ${message}`);
  };
  if (!(relL2 > 0 && relL2 < 1)) fail(`the tolerance relL2 must be in (0, 1), got ${relL2}`);
  if (!(absolute >= 0 && absolute < Infinity)) fail(`the bound absolute must be finite and >= 0, got ${absolute}`);
  if (actual.length !== expected.length) fail(`${actual.length} values where ${expected.length} were expected`);
  if (expected.length === 0) fail("nothing to compare, 0 values");
  if (shape && shape.reduce((a, b) => a * b, 1) !== expected.length) fail(`shape [${shape.join(", ")}] does not fit ${expected.length} values`);

  let worst = 0;
  let worstDifference = -1;
  let difference2 = 0;
  let expected2 = 0;
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    const a = actual[i]!;
    const e = expected[i]!;
    if (!Number.isFinite(e)) fail(`expected value at ${at(i, shape)} is ${e}`);
    if (!Number.isFinite(a)) fail(`first non-finite value ${a} at ${at(i, shape)} of ${expected.length}, expected ${e}`);
    const difference = Math.abs(a - e);
    if (difference > worstDifference) {
      worstDifference = difference;
      worst = i;
    }
    difference2 += difference * difference;
    expected2 += e * e;
    largest = Math.max(largest, Math.abs(a));
  }
  const where = `worst at ${at(worst, shape)} of ${expected.length}: got ${actual[worst]}, expected ${expected[worst]}`;
  if (expected2 === 0) {
    if (!(largest <= absolute)) fail(`everything expected is 0, got up to ${largest} (bound ${absolute}); ${where}`);
    return largest;
  }
  const error = Math.sqrt(difference2 / expected2);
  // written so that a NaN fails
  if (!(error <= relL2)) fail(`relative L2 error ${error.toExponential(3)} exceeds ${relL2.toExponential(1)}; ${where}`);
  return error;
}

function at(index: number, shape: readonly number[] | undefined): string {
  if (!shape) return `index ${index}`;
  const coordinates: number[] = [];
  let rest = index;
  for (const size of [...shape].reverse()) {
    coordinates.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return `[${coordinates.join(", ")}]`;
}
