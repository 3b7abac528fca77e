import { checkInteger, checkObject, checkOneOf, rangeError } from "../checks.ts";
import type { TileName } from "./kernel.ts";

/** What a kernel's host half may choose by the adapter. Results differ in rounding only, and not at all on one adapter. */
export interface Tuning {
  /** The largest register tile. `16x8_quads` needs the feature `subgroups`. */
  readonly tile: Exclude<TileName, "1x4">;
  /** Tokens that one invocation of moments.wgsl sums. */
  readonly blockTokens: number;
  /** Tokens of a block of a causal slab. */
  readonly prefixBlockTokens: number;
  /** Selection in one dispatch up to this width; in two over slabs of query rows beyond it. */
  readonly fusedSelectMaxDim: number;
  /** Lanes that share 4 channels where single tokens are decoded: 1, 4, 16 or 64. */
  readonly decodeLanes: 1 | 4 | 16 | 64;
}

export interface AdapterDescription {
  readonly vendor: string;
  readonly architecture: string;
  readonly description: string;
  readonly software: boolean;
}

/**
 * Whole layers (`npm run bench:tunings`): `16x8_quads` takes 0.72-0.87 of the time of `16x8` on SwiftShader and 0.52-0.60 on lavapipe, 0.53-0.58 and
 * 0.62-0.70 of that of `8x4`; the one-dispatch selection makes a layer take 1.0-1.7 and 1.3-1.7 times as long. On GPUs, where the gated rows' trip
 * through memory is what costs, it is expected to win at small widths; that half is an expectation, not a measurement.
 *
 * Blocks: of 32 or 64 tokens instead of 128 make 128 and 256 tokens take 0.77-0.94 of the time on SwiftShader, and 4,096 tokens 1.08-1.10
 * (in single processes, which differ as much at that size: docs/performance.md). A GPU has far more invocations to keep busy, so its blocks are short; that is an expectation, too.
 *
 * `decodeLanes`: a token alone has too few channels to fill a GPU, so 16 lanes are expected to win there, unmeasured; software adapters lose by the barriers.
 */
const software: Tuning = { tile: "16x8", blockTokens: 128, prefixBlockTokens: 64, fusedSelectMaxDim: 0, decodeLanes: 1 };
const gpu: Tuning = { tile: "8x4", blockTokens: 32, prefixBlockTokens: 16, fusedSelectMaxDim: 128, decodeLanes: 16 };

/** A tuning for this adapter with the caller's choices in it, for example what `tune` found earlier. @throws TypeError, RangeError */
export function checkedTuning(where: string, adapter: AdapterDescription, features: ReadonlySet<string>, choices: Partial<Tuning> = {}): Tuning {
  checkObject(where, "tuning", choices, Object.keys(gpu));
  const tuning = { ...tuningFor(adapter, features), ...choices };
  checkOneOf(where, "tuning.tile", tuning.tile, ["8x4", "16x8", "16x8_quads"]);
  if (tuning.tile === "16x8_quads" && !features.has("subgroups")) {
    throw rangeError(where, "tuning.tile", "be a tile that the device can run", tuning.tile, 'request a device with "subgroups", or choose "16x8"');
  }
  for (const key of ["blockTokens", "prefixBlockTokens"] as const) {
    const value = checkInteger(where, `tuning.${key}`, tuning[key], 8, 1024);
    // Halved until a block fits a kernel's loop limit, and cut where register tiles and block-causal masks of 2, 4 and 8 tokens are.
    if ((value & (value - 1)) !== 0) throw rangeError(where, `tuning.${key}`, "be a power of two", value);
  }
  checkInteger(where, "tuning.fusedSelectMaxDim", tuning.fusedSelectMaxDim, 0);
  if (![1, 4, 16, 64].includes(tuning.decodeLanes)) throw rangeError(where, "tuning.decodeLanes", "be 1, 4, 16 or 64", tuning.decodeLanes);
  return tuning;
}

export function tuningFor(adapter: AdapterDescription, features: ReadonlySet<string>): Tuning {
  if (!adapter.software) return gpu;
  return features.has("subgroups") ? { ...software, tile: "16x8_quads" } : software;
}
