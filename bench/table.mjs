// The results as text.
import { flopsOf } from "./cases.mjs";
import { crossover, median, ratio } from "./statistics.mjs";

/** @typedef {import("./results.mjs").GroupResult} GroupResult */
/** @typedef {import("./results.mjs").EntryResult} EntryResult */

/** Three significant digits, without an exponent. @param {number} value */
export function short(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1_000) return Math.round(value).toLocaleString("en-US");
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  if (size >= 1) return value.toFixed(2);
  return value.toFixed(3);
}

/** @param {number} value @param {string} unit */
export function withPrefix(value, unit) {
  if (!Number.isFinite(value)) return "–";
  const [prefix = "", factor = 1] =
    /** @type {const} */ ([
      ["T", 1e12],
      ["G", 1e9],
      ["M", 1e6],
      ["k", 1e3],
    ]).find(([, size]) => value >= size) ?? [];
  return `${short(value / factor)} ${prefix}${unit}`;
}

/** @param {number | undefined} bytes */
export function megabytes(bytes) {
  return bytes === undefined ? "–" : `${short(bytes / 1e6)} MB`;
}

/** Rows with aligned columns; the first column to the left, the others to the right. @param {readonly (readonly string[])[]} rows @param {string} [indent] */
export function align(rows, indent = "") {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => [...(row[column] ?? "")].length)));
  const pad = (/** @type {string} */ text, /** @type {number} */ width, /** @type {boolean} */ right) => {
    const space = " ".repeat(Math.max(0, width - [...text].length));
    return right ? space + text : text + space;
  };
  return rows.map((row) => (indent + row.map((text, column) => pad(text, widths[column] ?? 0, column > 0)).join("  ")).trimEnd()).join("\n");
}

const HEAD = ["", "median", "min to max", "× best", "rate", "of its ceiling", "dispatches", "submits", "peak memory", "error"];

/** @param {GroupResult} group */
export function groupTable(group) {
  const lines = [`${group.id}: ${group.title}`];
  if (group.kind === "create") return [...lines, createTable(group)].join("\n");
  const measured = group.entries.filter((e) => e.status === "ok" && e.samples?.length);
  const contenders = measured.filter(({ role }) => role === "contender");
  const best = contenders.sort((a, b) => median(a.samples ?? []) - median(b.samples ?? []))[0];
  const rows = measured.map((entry) => entryRow(entry, group.kind === "scaling" ? undefined : best));
  if (rows.length > 0) lines.push(align([HEAD, ...rows], "  "));
  for (const { name, status, reason } of group.entries) if (status !== "ok") lines.push(`  ${name}: ${status}, ${reason ?? "no reason given"}`);
  for (const { name, kernels } of group.entries) {
    if (kernels?.length) lines.push(`  GPU clock, ${name}: ${kernels.map(({ kernel, ms }) => `${kernel} ${short(ms)}`).join(", ")} ms`);
  }
  return lines.join("\n");
}

/** @param {EntryResult} entry @param {EntryResult | undefined} best */
function entryRow({ name, samples = [], ms, role, task, details, ceiling, perCall, peakBytes, error }, best) {
  const seconds = median(samples) / 1000;
  const work = flopsOf(task) ?? details?.work ?? Number.NaN;
  const unit = task.kind === "copy" || task.kind === "matvec" ? "B/s" : "FLOP/s";
  const done = task.kind === "matvec" ? (details?.work ?? Number.NaN) : work;
  return [
    name,
    `${short(seconds * 1000)} ms`,
    `${short(ms?.min ?? Number.NaN)} to ${short(ms?.max ?? Number.NaN)}`,
    best?.samples && role !== "ceiling" ? short(ratio(samples, best.samples).median) : "",
    withPrefix(done / seconds, unit),
    ceiling ? `${short(100 * ceiling.share)} % ${ceiling.name}` : (details?.variant ?? ""),
    perCall ? short(perCall.dispatches) : "",
    perCall ? short(perCall.submits) : "",
    role === "ceiling" ? "" : megabytes(peakBytes),
    error === undefined ? "" : error.toExponential(0),
  ];
}

/** @param {GroupResult} group */
function createTable({ entries }) {
  const rows = entries.map(({ name, status, reason, startMs, firstResultSamples = [] }) =>
    status === "ok"
      ? [
          name,
          `${short(median(firstResultSamples))} ms`,
          `${short(Math.min(...firstResultSamples))} to ${short(Math.max(...firstResultSamples))}`,
          `${short(startMs ?? Number.NaN)} ms`,
        ]
      : [name, status, reason ?? "", ""],
  );
  return align([["", "first result", "min to max", "before: library and device"], ...rows], "  ");
}

/**
 * The layer and its rivals by the number of tokens: time, memory and FLOPs of every method in one table, and from where on each is faster than attention.
 * @param {readonly GroupResult[]} groups of one series
 */
export function rivalsTable(groups) {
  const { names, sizes } = rivalsOf(groups);
  const cell = (/** @type {GroupResult} */ group, /** @type {string} */ name, /** @type {(entry: EntryResult) => string} */ text) => {
    const entry = group.entries.find((e) => e.name === name);
    return entry?.status === "ok" && entry.samples?.length ? text(entry) : "–";
  };
  const rows = (/** @type {string} */ title, /** @type {(entry: EntryResult) => string} */ text) => [
    [title, ...groups.map(() => "")],
    ...names.map((name) => [`  ${name}`, ...groups.map((group) => cell(group, name, text))]),
  ];
  const table = [
    [groups[0]?.series ?? "", ...sizes.map((size) => `N=${size.toLocaleString("en-US")}`)],
    ...rows("time", (entry) => `${short(median(entry.samples ?? []))} ms`),
    ...rows("peak memory", (entry) => megabytes(entry.peakBytes)),
    ...rows("FLOPs", (entry) => withPrefix(flopsOf(entry.task) ?? Number.NaN, "FLOP")),
  ];
  const faster = overtakings(groups).map(
    ({ name, size }) => `  ${name} is faster than attention from N=${Math.round(size).toLocaleString("en-US")} on`,
  );
  return [align(table, "  "), ...faster].join("\n");
}

/** Methods in the order of their first appearance, and lengths. @param {readonly GroupResult[]} groups */
export function rivalsOf(groups) {
  return {
    names: [...new Set(groups.flatMap((group) => group.entries.map(({ name }) => name)))],
    sizes: groups.map(({ size }) => size ?? Number.NaN),
  };
}

/** Where each method of a series of rivals becomes faster than attention; those that do not are left out. @param {readonly GroupResult[]} groups */
export function overtakings(groups) {
  return rivalsOf(groups).names.flatMap((name) => {
    const both = groups.flatMap((group) => {
      const [entry, attention] = [name, "attention"].map((wanted) =>
        group.entries.find((e) => e.name === wanted && e.status === "ok" && e.samples?.length),
      );
      return entry && attention && name !== "attention" ? [{ size: group.size ?? Number.NaN, entry, attention }] : [];
    });
    const times = (/** @type {"entry" | "attention"} */ which) => both.map((point) => median(point[which].samples ?? []));
    const size = crossover(
      both.map((point) => point.size),
      times("entry"),
      times("attention"),
    );
    return Number.isNaN(size) ? [] : [{ name, size }];
  });
}

/** @param {readonly import("./results.mjs").Target[]} targets */
export function targetTable(targets) {
  const rows = targets.map(({ name, value, low, high, limit, sense, met, unit }) => {
    const suffix = unit === "" || unit === "×" ? unit : ` ${unit}`;
    const spread = low === undefined || high === undefined ? "" : `(${short(low)} to ${short(high)})`;
    return [name, `${short(value)}${suffix}`, spread, `${sense} ${limit}${suffix}`, met ? "met" : "MISSED"];
  });
  return align([["targets", "median", "quartiles", "limit", ""], ...rows]);
}
