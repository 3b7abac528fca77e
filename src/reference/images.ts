import { checkInteger, rangeError, raw } from "../checks.ts";
import { checkLength } from "./arrays.ts";

/** Sizes of a batch of images. */
export interface ImageSizes {
  readonly batch: number;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  /** Side of a patch. */
  readonly patch: number;
}

/**
 * image [B, C, H, W] -> patches [B, rows·columns, C·p·p], in row-major order; what does not fill a patch is dropped. With `channelsLast` a patch is (row in it, column, channel):
 * of a gradient of what `unpatchify` gives, that of what it was given.
 */
export function patchify(image: ArrayLike<number>, { batch, channels, height, width, patch }: ImageSizes, channelsLast = false): Float64Array {
  checkLength("patchify", "image", image, batch * channels * height * width, "B·C·H·W");
  const [rows, columns] = [Math.floor(height / patch), Math.floor(width / patch)];
  const area = patch * patch;
  const out = new Float64Array(batch * rows * columns * channels * area);
  for (let b = 0; b < batch; b++) {
    for (let n = 0; n < rows * columns; n++) {
      for (let c = 0; c < channels; c++) {
        for (let i = 0; i < area; i++) {
          const y = Math.floor(n / columns) * patch + Math.floor(i / patch);
          const x = (n % columns) * patch + (i % patch);
          const inside = channelsLast ? i * channels + c : c * area + i;
          out[(b * rows * columns + n) * channels * area + inside] = image[((b * channels + c) * height + y) * width + x]!;
        }
      }
    }
  }
  return out;
}

/**
 * patches [B, rows·columns, p·p·C], each (row in the patch, column, channel) -> image [B, C, H, W], 0 where a border does not fill a patch. Without `channelsLast` a patch is
 * (channel, row, column): of a gradient of what `patchify` gives, that of the image.
 */
export function unpatchify(patches: ArrayLike<number>, { batch, channels, height, width, patch }: ImageSizes, channelsLast = true): Float64Array {
  const [rows, columns] = [Math.floor(height / patch), Math.floor(width / patch)];
  const area = patch * patch;
  checkLength("unpatchify", "patches", patches, batch * rows * columns * area * channels, "B·n·p·p·C");
  const out = new Float64Array(batch * channels * height * width);
  for (let b = 0; b < batch; b++) {
    for (let c = 0; c < channels; c++) {
      for (let y = 0; y < rows * patch; y++) {
        for (let x = 0; x < columns * patch; x++) {
          const n = Math.floor(y / patch) * columns + Math.floor(x / patch);
          const i = (y % patch) * patch + (x % patch);
          const inside = channelsLast ? i * channels + c : c * area + i;
          out[((b * channels + c) * height + y) * width + x] = patches[(b * rows * columns + n) * area * channels + inside]!;
        }
      }
    }
  }
  return out;
}

/** Keys' cubic kernel of parameter a. */
function cubic(t: number, a: number): number {
  const x = Math.abs(t);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/** Weights [out, in] of a resampling of `length` samples at pixel centres. */
export function bicubicWeights(length: number, out: number, antialias: boolean): Float64Array {
  const scale = length / out;
  // Antialiased: a = -0.5, stretched, taps past the border dropped. Else: a = -0.75, taps past the border repeat it.
  const stretch = antialias ? Math.max(1, scale) : 1;
  const weights = new Float64Array(out * length);
  for (let i = 0; i < out; i++) {
    const centre = (i + 0.5) * scale - 0.5;
    let sum = 0;
    for (let tap = Math.ceil(centre - 2 * stretch); tap <= centre + 2 * stretch; tap++) {
      const weight = cubic((tap - centre) / stretch, antialias ? -0.5 : -0.75);
      if (antialias && (tap < 0 || tap >= length)) continue;
      const at = i * length + Math.min(length - 1, Math.max(0, tap));
      weights[at] = weights[at]! + weight;
      sum += weight;
    }
    if (antialias) for (let j = 0; j < length; j++) weights[i * length + j] = weights[i * length + j]! / sum;
  }
  return weights;
}

/** grid [side², D] -> [out², D], bicubic in both directions. */
export function resizeGrid(grid: ArrayLike<number>, out: number, dim: number, antialias: boolean): Float64Array {
  const side = Math.sqrt(grid.length / dim);
  if (!Number.isInteger(side)) throw rangeError("resizeGrid", "grid", "be square", raw(`${grid.length / dim} cells`));
  checkInteger("resizeGrid", "out", out, 1);
  const weights = bicubicWeights(side, out, antialias);
  const result = new Float64Array(out * out * dim);
  for (let y = 0; y < out; y++) {
    for (let x = 0; x < out; x++) {
      for (let i = 0; i < side; i++) {
        for (let j = 0; j < side; j++) {
          const weight = weights[y * side + i]! * weights[x * side + j]!;
          for (let d = 0; d < dim; d++) {
            const at = (y * out + x) * dim + d;
            result[at] = result[at]! + weight * grid[(i * side + j) * dim + d]!;
          }
        }
      }
    }
  }
  return result;
}

/** The gradient of a grid [side², D] from that of the grid [out², D] that `resizeGrid` made of it. */
export function resizeGridBackward(gradient: ArrayLike<number>, side: number, dim: number, antialias: boolean): Float64Array {
  const out = Math.sqrt(gradient.length / dim);
  if (out === side) return Float64Array.from(gradient);
  const weights = bicubicWeights(side, out, antialias);
  const result = new Float64Array(side * side * dim);
  for (let cell = 0; cell < out * out; cell++) {
    for (let from = 0; from < side * side; from++) {
      const weight = weights[Math.floor(cell / out) * side + Math.floor(from / side)]! * weights[(cell % out) * side + (from % side)]!;
      for (let d = 0; d < dim; d++) result[from * dim + d]! += weight * gradient[cell * dim + d]!;
    }
  }
  return result;
}
