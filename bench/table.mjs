// The results as text.
import { flopsOf } from "./cases.mjs";
import { median, ratio } from "./statistics.mjs";

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

/** @param {readonly import("./results.mjs").Target[]} targets */
export function targetTable(targets) {
  const rows = targets.map(({ name, value, low, high, limit, sense, met, unit }) => {
    const suffix = unit === "" || unit === "×" ? unit : ` ${unit}`;
    const spread = low === undefined || high === undefined ? "" : `(${short(low)} to ${short(high)})`;
    return [name, `${short(value)}${suffix}`, spread, `${sense} ${limit}${suffix}`, met ? "met" : "MISSED"];
  });
  return align([["targets", "median", "quartiles", "limit", ""], ...rows]);
}
