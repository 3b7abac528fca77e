// From measured samples to what they mean: shares of a ceiling, ratios, targets. No measuring here.
import { bytesOf, crossoverTokens, flopsOf } from "./cases.mjs";
import { crossover, exponent, median, ratio, summary } from "./statistics.mjs";

/** @typedef {import("./statistics.mjs").Summary} Summary */
/**
 * @typedef {{
 *   name: string, contender: string, role: "contender" | "baseline" | "ceiling", task: import("./types.ts").Task,
 *   status: "ok" | "wrong" | "failed" | "skipped", reason?: string, error?: number,
 *   startMs?: number, firstResultMs?: number, peakBytes?: number, calls?: number, samples?: number[], ms?: Summary,
 *   firstResultSamples?: number[],
 *   perCall?: { dispatches: number, submits: number }, kernels?: { kernel: string, ms: number }[], details?: import("./types.ts").Details | null,
 *   ceiling?: { name: string, share: number },
 * }} EntryResult
 */
/** @typedef {{ id: string, title: string, kind: import("./cases.mjs").Group["kind"], series?: string, size?: number, entries: EntryResult[] }} GroupResult */
/** @typedef {{ name: string, unit: "FLOP/s" | "B/s", value: number, variant: string }} Ceiling */
/** @typedef {{ name: string, value: number, low?: number, high?: number, limit: number, sense: "at most" | "at least", met: boolean, unit: string }} Target */

/** @param {GroupResult} group @param {string} name */
export function entryOf(group, name) {
  const entry = group.entries.find((e) => e.name === name);
  return entry?.status === "ok" && entry.samples?.length ? /** @type {EntryResult & { samples: number[], ms: Summary }} */ (entry) : undefined;
}

/** The group of plain speeds as numbers. @param {readonly GroupResult[]} groups @returns {Ceiling[]} */
export function ceilingsOf(groups) {
  const group = groups.find(({ kind }) => kind === "ceilings");
  return (group?.entries ?? []).flatMap(({ name, status, samples, details }) => {
    if (status !== "ok" || !samples || !details?.work) return [];
    const unit = name === "multiply-add" || name === "product" ? "FLOP/s" : "B/s";
    return [{ name, unit: /** @type {Ceiling["unit"]} */ (unit), value: details.work / (median(samples) / 1000), variant: details.variant ?? "" }];
  });
}

/**
 * The ceiling that binds each entry: of those that its work cannot pass, the one it comes nearest to. The product of its own shape, measured in the same
 * rounds, where its group has one; else the plain product's rate; and moving its bytes once.
 * @param {readonly GroupResult[]} groups
 */
export function addCeilings(groups) {
  const ceilings = new Map(ceilingsOf(groups).map(({ name, value }) => [name, value]));
  for (const group of groups) {
    if (group.kind === "ceilings" || group.kind === "create") continue;
    const own = group.entries.find((e) => e.role === "ceiling" && e.status === "ok");
    for (const entry of group.entries) {
      if (entry.status !== "ok" || !entry.samples?.length || entry.role === "ceiling") continue;
      const seconds = median(entry.samples) / 1000;
      /** @type {{ name: string, share: number }[]} */
      const shares = [];
      if (own?.samples) shares.push({ name: own.name, share: 1 / ratio(entry.samples, own.samples).median });
      const [flops, bytes, rate, copy] = [flopsOf(entry.task), bytesOf(entry.task), ceilings.get("product"), ceilings.get("copy")];
      if (!own && flops && rate) shares.push({ name: "product", share: flops / seconds / rate });
      if (bytes && copy && entry.task.kind !== "decode") shares.push({ name: "copy", share: bytes / seconds / copy });
      const binding = shares.sort((a, b) => b.share - a.share)[0];
      if (binding) entry.ceiling = binding;
    }
  }
}

/** @param {string} name @param {Summary | number} value @param {Target["sense"]} sense @param {number} limit @param {string} [unit] @returns {Target} */
function target(name, value, sense, limit, unit = "×") {
  const middle = typeof value === "number" ? value : value.median;
  const met = sense === "at most" ? middle <= limit : middle >= limit;
  return { name, value: middle, ...(typeof value !== "number" && { low: value.q1, high: value.q3 }), limit, sense, met, unit };
}

const MAX_CREATE_MS = 1_500;
const PEERS = ["jax", "tfjs", "onnx"];

/** The targets that these groups say something about. @param {readonly GroupResult[]} groups @param {{ software: boolean }} adapter @returns {Target[]} */
export function targetsOf(groups, adapter) {
  return [...groups.flatMap((group) => targetsOfGroup(group, adapter)), ...crossoverTargets(groups)];
}

/** @param {GroupResult} group @param {{ software: boolean }} adapter @returns {Target[]} */
function targetsOfGroup(group, adapter) {
  const homm = entryOf(group, "homm");
  const compare = (/** @type {string} */ name) => {
    const other = entryOf(group, name);
    return homm && other ? { homm, other } : undefined;
  };
  /** @type {Target[]} */
  const targets = [];
  const unmasked = compare("homm unmasked");
  if (unmasked) {
    const limit = group.id.startsWith("causal") ? 1.3 : 1.05;
    targets.push(target(`${group.id}: masked / unmasked`, ratio(unmasked.homm.samples, unmasked.other.samples), "at most", limit));
  }
  const product = compare("product");
  if (product && group.kind === "moments") {
    targets.push(target(`${group.id}: moment stage / best product`, ratio(product.homm.samples, product.other.samples), "at most", 1.1));
  }
  const three = compare("three products");
  if (three && group.id.startsWith("layer-")) {
    targets.push(target(`${group.id}: layer / its three products`, ratio(three.homm.samples, three.other.samples), "at most", 1.2));
  }
  const matvec = compare("matrix-vector");
  if (matvec)
    targets.push(target(`${group.id}: share of the best matrix-vector speed`, ratio(matvec.other.samples, matvec.homm.samples), "at least", 0.7));
  if (homm?.perCall && group.kind === "decode") {
    targets.push(target(`${group.id}: dispatches a token`, homm.perCall.dispatches, "at most", 2, ""));
    targets.push(target(`${group.id}: submits a token`, homm.perCall.submits, "at most", 1, ""));
  }
  const peers = PEERS.flatMap((name) => compare(name) ?? []);
  const fastest = peers.sort((a, b) => a.other.ms.median - b.other.ms.median)[0];
  if (fastest && homm && group.id.startsWith("layer-")) {
    targets.push(target(`${group.id}: fastest peer (${fastest.other.name}) / layer`, ratio(fastest.other.samples, homm.samples), "at least", 1.5));
  }
  for (const { homm, other } of peers) {
    const limited = group.kind === "decode" || (group.id.startsWith("layer-") && other.name !== "jax");
    if (limited) targets.push(target(`${group.id}: ${other.name} / homm`, ratio(other.samples, homm.samples), "at least", 3));
  }
  const peaks = peers.map(({ other }) => other.peakBytes ?? Number.POSITIVE_INFINITY);
  const factor = { "layer-A": 3, "layer-C": 10, "layer-E": 10 }[group.id];
  if (factor && homm?.peakBytes && peaks.length > 0) {
    targets.push(target(`${group.id}: leanest peer's peak memory / homm's`, Math.min(...peaks) / homm.peakBytes, "at least", factor));
  }
  if (group.kind === "scaling") {
    const measured = group.entries.filter((e) => e.status === "ok" && e.samples?.length && e.task.kind === "layer");
    if (measured.length >= 3) {
      const sizes = measured.map((e) => /** @type {import("./types.ts").LayerTask} */ (e.task).tokens);
      const rounds = Math.min(...measured.map((e) => e.samples?.length ?? 0));
      const fits = Array.from({ length: rounds }, (_, round) =>
        exponent(
          sizes,
          measured.map((e) => e.samples?.[round] ?? Number.NaN),
        ),
      );
      targets.push(target(`scaling: exponent of N from ${Math.min(...sizes)} to ${Math.max(...sizes)}`, summary(fits), "at most", 1.02, ""));
    }
  }
  if (group.kind === "create" && adapter.software) {
    const first = group.entries.find(({ name }) => name === "homm")?.firstResultSamples;
    if (first?.length) targets.push(target("create: to the first result", median(first), "at most", MAX_CREATE_MS, "ms"));
  }
  return targets;
}

/** Where the layer becomes faster than the package's attention, against where it needs fewer FLOPs. @param {readonly GroupResult[]} groups @returns {Target[]} */
function crossoverTargets(groups) {
  const points = groups
    .filter(({ series }) => series === "attention")
    .flatMap((group) => {
      const [homm, attention] = [entryOf(group, "homm"), entryOf(group, "AttentionLayer")];
      return homm && attention && homm.task.kind === "layer" ? [{ homm, attention, task: homm.task, size: group.size ?? Number.NaN }] : [];
    })
    .sort((a, b) => a.size - b.size);
  const [first] = points;
  if (!first || points.length < 2) return [];
  const measured = crossover(
    points.map(({ size }) => size),
    points.map(({ homm }) => homm.ms.median),
    points.map(({ attention }) => attention.ms.median),
  );
  const predicted = crossoverTokens(first.task);
  // The layer was faster, or slower, at every N.
  if (Number.isNaN(measured)) return [];
  const name = `attention: overtaken at N=${Math.round(measured)}, by FLOPs at N=${Math.round(predicted)}; off by`;
  return [target(name, 100 * Math.abs(measured / predicted - 1), "at most", 25, "%")];
}

/** This version against another, per group: how many times it takes what the other takes. @param {readonly GroupResult[]} groups */
export function againstBase(groups) {
  return groups.flatMap((group) =>
    group.entries.flatMap((entry) => {
      const base = entryOf(group, `${entry.name}@base`);
      const head = entryOf(group, entry.name);
      return base && head ? [{ name: `${group.id}: ${entry.name}`, ...ratio(head.samples, base.samples) }] : [];
    }),
  );
}
