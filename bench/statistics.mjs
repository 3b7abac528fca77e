/** @typedef {{ median: number, min: number, max: number, q1: number, q3: number }} Summary */

/** The value below which a share of the samples lies, interpolated. @param {readonly number[]} values @param {number} share */
export function quantile(values, share) {
  if (values.length === 0) return Number.NaN;
  const sorted = [...values].sort((a, b) => a - b);
  const at = share * (sorted.length - 1);
  const below = sorted[Math.floor(at)] ?? Number.NaN;
  const above = sorted[Math.ceil(at)] ?? Number.NaN;
  return below + (above - below) * (at - Math.floor(at));
}

/** @param {readonly number[]} values */
export function median(values) {
  return quantile(values, 0.5);
}

/** @param {readonly number[]} values @returns {Summary} */
export function summary(values) {
  const [min = Number.NaN, q1 = Number.NaN, middle = Number.NaN, q3 = Number.NaN, max = Number.NaN] = [0, 0.25, 0.5, 0.75, 1].map((share) =>
    quantile(values, share),
  );
  return { median: middle, min, max, q1, q3 };
}

/**
 * How many times `a` takes what `b` takes: each round of one against the same round of the other, so that what slows the whole machine down cancels out.
 * @param {readonly number[]} a @param {readonly number[]} b @returns {Summary}
 */
export function ratio(a, b) {
  const rounds = Math.min(a.length, b.length);
  return summary(Array.from({ length: rounds }, (_, i) => (a[i] ?? Number.NaN) / (b[i] ?? Number.NaN)));
}

/** p of the best fit of time = c·nᵖ: the slope of a line through the logarithms. @param {readonly number[]} sizes @param {readonly number[]} times */
export function exponent(sizes, times) {
  const points = sizes.map((n, i) => /** @type {const} */ ([Math.log(n), Math.log(times[i] ?? Number.NaN)]));
  const mean = (/** @type {readonly number[]} */ values) => values.reduce((a, b) => a + b, 0) / values.length;
  const x = mean(points.map((p) => p[0]));
  const y = mean(points.map((p) => p[1]));
  const covariance = points.reduce((sum, p) => sum + (p[0] - x) * (p[1] - y), 0);
  return covariance / points.reduce((sum, p) => sum + (p[0] - x) ** 2, 0);
}

/**
 * Where one curve falls below the other: the size at which a/b passes 1 for the last time, interpolated between logarithms. NaN where it does not.
 * @param {readonly number[]} sizes ascending @param {readonly number[]} a @param {readonly number[]} b
 */
export function crossover(sizes, a, b) {
  const logs = sizes.map((_, i) => Math.log((a[i] ?? Number.NaN) / (b[i] ?? Number.NaN)));
  for (let i = sizes.length - 1; i > 0; i--) {
    const [before = Number.NaN, after = Number.NaN] = [logs[i - 1], logs[i]];
    if (before > 0 && after <= 0) {
      const share = before / (before - after);
      return Math.exp(Math.log(sizes[i - 1] ?? Number.NaN) * (1 - share) + Math.log(sizes[i] ?? Number.NaN) * share);
    }
  }
  return Number.NaN;
}

/** sqrt(Σ (a - b)²) / sqrt(Σ b²), NaN where a value is missing or not finite. @param {ArrayLike<number>} actual @param {ArrayLike<number>} expected */
export function relativeError(actual, expected) {
  if (actual.length !== expected.length) return Number.NaN;
  let difference = 0;
  let size = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += ((actual[i] ?? Number.NaN) - (expected[i] ?? Number.NaN)) ** 2;
    size += (expected[i] ?? Number.NaN) ** 2;
  }
  return Math.sqrt(difference / size);
}
