/** From what a checkpoint calls its tensors to what a layer asks for. */
import { describe, typeError } from "../checks.ts";
import { WeightsError } from "../errors.ts";
import { tensorNamed, toWeights, Weights, type WeightsSource, WeightTensor, weightsError } from "./safetensors.ts";

/** Prefixes that training code leaves on every key: a wrapper module, an exponential moving average, a compiled module. They nest. */
const PREFIXES = ["model.", "ema.ema_model.", "_orig_mod."] as const;

/** Options of {@link normaliseKeys}. */
export interface NormaliseKeysOptions {
  /** Named in errors; by default "normaliseKeys". */
  where?: string | undefined;
  /** Keep exactly the keys with this prefix, without it, and drop the rest; "" keeps everything as it is. */
  prefix?: string | undefined;
  /** The model's own keys. With them a file may hold more than the model (an optimiser, step counters, the averaged model beside the raw one). */
  expected?: Iterable<string> | undefined;
}

/**
 * Removes the prefixes of training code (`model.`, `ema.ema_model.`, `_orig_mod.`, nested in any way) from a checkpoint's keys. Nothing is copied.
 *
 * Without options all keys must carry the same prefixes (or none). With `expected` the prefix is the one under which those keys are found; keys outside it are
 * dropped. Where two prefixes fit, as for a raw and an averaged model in one file, nothing is guessed: it is a `WeightsError`, and `prefix` decides.
 *
 * ```ts
 * const weights = normaliseKeys(parseSafetensors(bytes));
 * const averaged = normaliseKeys(parseSafetensors(bytes), { prefix: "ema.ema_model." });
 * ```
 */
export function normaliseKeys(source: WeightsSource, options: NormaliseKeysOptions = {}): Weights {
  const where = options.where ?? "normaliseKeys";
  const weights = toWeights(where, source);
  const groups = countBy(weights.names.map(prefixOf));

  if (options.prefix !== undefined) {
    const { prefix } = options;
    if (typeof prefix !== "string") throw typeError(where, "prefix", "be a string", prefix);
    if (!weights.names.some((name) => name.startsWith(prefix))) {
      throw weightsError(where, "prefix", "be the beginning of some keys", describe(prefix), `the file has ${listGroups(groups)}`);
    }
    return strip(weights, prefix);
  }

  if (options.expected !== undefined) return strip(weights, fittingPrefix(where, weights, new Set(options.expected)));

  if (groups.size > 1) {
    throw weightsError(where, "the keys", "all carry the same prefix", listGroups(groups), "say which to keep with { prefix }");
  }
  return strip(weights, [...groups.keys()][0] ?? "");
}

/** The known prefixes at the beginning of a key, one longer than the other: "", "model." and "model._orig_mod." of "model._orig_mod.layers.0". */
function prefixesOf(name: string): string[] {
  const prefixes = [""];
  for (let end = 0; ; ) {
    const found = PREFIXES.find((prefix) => name.startsWith(prefix, end));
    if (found === undefined) return prefixes;
    end += found.length;
    prefixes.push(name.slice(0, end));
  }
}

const prefixOf = (name: string): string => prefixesOf(name).at(-1)!;

/** The prefix under which most of the expected keys are found. */
function fittingPrefix(where: string, weights: Weights, expected: ReadonlySet<string>): string {
  const found = new Map<string, number>();
  for (const name of weights.names) {
    // Not the longest alone: a model may itself have a part called `model`.
    for (const prefix of prefixesOf(name)) {
      if (expected.has(name.slice(prefix.length))) found.set(prefix, (found.get(prefix) ?? 0) + 1);
    }
  }
  const most = Math.max(0, ...found.values());
  const best = [...found].filter(([, count]) => count === most).map(([prefix]) => prefix);
  if (best.length > 1) {
    const list = best.map((prefix) => describe(prefix)).join(" and ");
    throw weightsError(
      where,
      "the model's keys",
      "be found under one prefix",
      `${most} of ${expected.size} under each of ${list}`,
      "choose with { prefix }",
    );
  }
  // Where not one key fits, the names stay as they are, so that whoever collects them can say what is missing.
  return best[0] ?? "";
}

function strip(weights: Weights, prefix: string): Weights {
  if (prefix === "") return weights;
  const tensors: WeightTensor[] = [];
  for (const { name, dtype, shape, bytes } of weights) {
    if (name.startsWith(prefix)) tensors.push(new WeightTensor(name.slice(prefix.length), dtype, shape, bytes));
  }
  return new Weights(tensors, weights.metadata);
}

function countBy(items: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const item of items) counts.set(item, (counts.get(item) ?? 0) + 1);
  return counts;
}

function listGroups(groups: ReadonlyMap<string, number>): string {
  const list = [...groups]
    .sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
    .map(([prefix, count]) => `${count} ${count === 1 ? "key" : "keys"} ${prefix === "" ? "without a prefix" : `with ${describe(prefix)}`}`);
  return list.length === 0 ? "no keys" : list.join(", ");
}

/** Sizes of a tensor by key. */
export type ShapesByKey = Readonly<Record<string, readonly number[]>>;

/** Options of {@link collectParams}. */
export interface CollectParamsOptions {
  /** Named in errors: the function that needs the parameters. By default "collectParams". */
  where?: string | undefined;
  /** Keys that may be absent, biases for instance; where present they must have this shape. */
  optional?: ShapesByKey | undefined;
  /** Refuse weights that hold other keys than these: the sign of a configuration that does not fit. By default they are ignored. */
  strict?: boolean | undefined;
}

/**
 * Takes a model's parameters out of its weights, as Float32Arrays by key: views of the file where its values are F32, decoded copies of F16 and BF16.
 * Refused with a `WeightsError`: absent keys (all in one message, with the likely misspellings), other shapes, dtypes that are no floats, values that are not finite.
 *
 * ```ts
 * const params = collectParams(weights, { "ho_proj.weight": [64, 16] }, { optional: { "ho_proj.bias": [64] }, where: "HomLayer.create" });
 * ```
 */
export function collectParams(source: WeightsSource, required: ShapesByKey, options: CollectParamsOptions = {}): Record<string, Float32Array> {
  const where = options.where ?? "collectParams";
  const weights = toWeights(where, source);
  const wanted = new Map([...Object.entries(required), ...Object.entries(options.optional ?? {})]);

  const missing = Object.keys(required).filter((key) => !weights.has(key));
  const unexpected = weights.names.filter((name) => !wanted.has(name));
  if (missing.length > 0) throw missingError(where, weights, missing, unexpected);
  if (options.strict && unexpected.length > 0) {
    const list = unexpected.slice(0, 16).map((name) => describe(name));
    const more = unexpected.length > list.length ? ` and ${unexpected.length - list.length} more` : "";
    throw weightsError(
      where,
      "weights",
      `hold only the ${wanted.size} keys of the model`,
      `also ${list.join(", ")}${more}`,
      "check the configuration",
    );
  }

  const present = [...wanted].filter(([key]) => weights.has(key));
  const misshapen = present.filter(([key, shape]) => !sameShape(weights.get(key).shape, shape));
  if (misshapen.length > 0) {
    const list = misshapen.map(([key, shape]) => `${describe(key)} [${weights.get(key).shape.join(", ")}] instead of [${shape.join(", ")}]`);
    throw weightsError(where, "weights", "have the shapes of the model", list.join(", "), "check the configuration, or the file");
  }

  const params: [string, Float32Array][] = [];
  for (const [key, shape] of present) {
    const tensor = weights.get(key);
    if (tensor.dtype !== "F32" && tensor.dtype !== "F16" && tensor.dtype !== "BF16") {
      throw weightsError(where, tensorNamed(key), "have the dtype F32, F16 or BF16", tensor.dtype, "convert the checkpoint");
    }
    const values = tensor.toFloat32();
    const bad = firstNonFinite(values);
    if (bad >= 0) {
      const hint = "the checkpoint comes from a training run that diverged, or it is damaged";
      throw weightsError(
        where,
        tensorNamed(key),
        "have only finite values",
        `${values[bad]} at index ${bad}, [${unravel(bad, shape).join(", ")}]`,
        hint,
      );
    }
    params.push([key, values]);
  }
  return Object.fromEntries(params);
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((n, i) => n === b[i]);
}

function firstNonFinite(values: Float32Array): number {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return i;
  return -1;
}

/** The position in a row-major array. */
function unravel(index: number, shape: readonly number[]): number[] {
  return shape
    .toReversed()
    .map((n) => {
      const i = index % n;
      index = (index - i) / n;
      return i;
    })
    .reverse();
}

function missingError(where: string, weights: Weights, missing: readonly string[], others: readonly string[]): WeightsError {
  const list = missing.map((key, i) => {
    // A file of another model may lack hundreds of keys; the first few show what is wrong.
    const near = i < 16 ? nearest(key, others) : undefined;
    return `${describe(key)}${near === undefined ? "" : ` (there is ${describe(near)})`}`;
  });
  const prefixed = missing.filter((key) => others.some((name) => prefixOf(name) !== "" && prefixOf(name) + key === name)).length;
  const hint =
    prefixed > 0
      ? "remove the prefix of the training code with normaliseKeys"
      : weights.size === 0
        ? "there are no tensors at all"
        : "check the configuration, or the file (its keys are in `names`)";
  return new WeightsError(
    `${where}: weights must hold all ${missing.length === 1 ? "keys" : "the keys"} of the model, got none of ${list.join(", ")}; ${hint}`,
  );
}

/** The most likely misspelling of a key, if any: the same but for a prefix, letter case or separators, or a few letters. */
function nearest(key: string, names: readonly string[]): string | undefined {
  const extended = names.find((name) => name.endsWith(`.${key}`) || key.endsWith(`.${name}`));
  if (extended !== undefined) return extended;
  const plain = (name: string): string => name.toLowerCase().replace(/[^a-z0-9]/g, "");
  let best: string | undefined;
  let least = Math.min(3, Math.floor(key.length / 4)) + 1;
  for (const name of names) {
    const distance = plain(name) === plain(key) ? 0 : editDistance(key, name, least);
    if (distance < least) {
      least = distance;
      best = name;
    }
  }
  return best;
}

/** Letters to change, add or remove between two words, given up at `limit`. */
function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit;
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    if (Math.min(...next) >= limit) return limit;
    row = next;
  }
  return row[b.length]!;
}
