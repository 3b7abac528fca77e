import { rangeError, raw } from "../checks.ts";

/** Keys' cubic convolution kernel. */
function cubic(distance: number, a: number): number {
  const t = Math.abs(distance);
  if (t >= 2) return 0;
  return t <= 1 ? (a + 2) * t ** 3 - (a + 3) * t ** 2 + 1 : a * (t ** 3 - 5 * t ** 2 + 8 * t - 4);
}

/** For each of `to` samples: the first of the `from` samples that it takes, and their weights. */
function taps(from: number, to: number, antialias: boolean): { readonly first: number; readonly weights: readonly number[] }[] {
  const step = from / to;
  const reach = antialias ? Math.max(1, step) : 1;
  const last = from - 1;
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * step - 0.5;
    const [low, high] = [Math.ceil(centre - 2 * reach), Math.floor(centre + 2 * reach)];
    const first = Math.min(last, Math.max(0, low));
    const weights = new Array<number>(Math.min(last, Math.max(0, high)) - first + 1).fill(0);
    let total = 0;
    for (let tap = low; tap <= high; tap++) {
      if (antialias && (tap < 0 || tap > last)) continue;
      const weight = cubic((tap - centre) / reach, antialias ? -0.5 : -0.75);
      const at = Math.min(last, Math.max(0, tap)) - first;
      weights[at] = (weights[at] ?? 0) + weight;
      total += weight;
    }
    // Without antialiasing the weights add up to 1 by themselves.
    return { first, weights: antialias ? weights.map((weight) => weight / total) : weights };
  });
}

/**
 * A square grid of rows `[side², D]`, resized to `[to², D]`, bicubically, at pixel centres; in float64.
 * @param antialias as PyTorch's interpolate: with it a = -0.5, the kernel stretched where the grid shrinks, taps past the border dropped; without it
 * a = -0.75, and taps past the border repeat it
 */
export function resizeGrid(where: string, grid: Float32Array, dim: number, to: number, antialias: boolean): Float32Array {
  const side = Math.sqrt(grid.length / dim);
  if (!Number.isInteger(side)) throw rangeError(where, "the checkpoint's positions", "be a square grid", raw(`${grid.length / dim} of them`));
  const along = taps(side, to, antialias);
  const wide = new Float64Array(side * to * dim);
  for (let y = 0; y < side; y++) {
    for (const [x, { first, weights }] of along.entries()) {
      for (const [k, weight] of weights.entries()) {
        for (let c = 0; c < dim; c++) wide[(y * to + x) * dim + c]! += weight * (grid[(y * side + first + k) * dim + c] ?? 0);
      }
    }
  }
  const out = new Float64Array(to * to * dim);
  for (const [y, { first, weights }] of along.entries()) {
    for (const [k, weight] of weights.entries()) {
      for (let i = 0; i < to * dim; i++) out[y * to * dim + i]! += weight * (wide[(first + k) * to * dim + i] ?? 0);
    }
  }
  return Float32Array.from(out);
}

/** What `resizeGrid` multiplies each of `from²` cells by for each of `to²` ones, `[to², from²]`. */
export function gridWeights(from: number, to: number, antialias: boolean): Float32Array<ArrayBuffer> {
  const along = taps(from, to, antialias);
  const out = new Float32Array(to * to * from * from);
  for (const [y, { first: top, weights: down }] of along.entries()) {
    for (const [x, { first: left, weights: across }] of along.entries()) {
      for (const [i, a] of down.entries()) {
        for (const [j, b] of across.entries()) out[((y * to + x) * from + top + i) * from + left + j] = a * b;
      }
    }
  }
  return out;
}
