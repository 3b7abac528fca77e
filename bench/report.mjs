// The results as one page that needs nothing else: tables, bars and log-log lines as inline SVG.
import { entryOf } from "./results.mjs";
import { median, ratio } from "./statistics.mjs";
import { megabytes, overtakings, rivalsOf, short, withPrefix } from "./table.mjs";

/** @typedef {import("./main.mjs").BenchDocument} BenchDocument */
/** @typedef {import("./results.mjs").GroupResult} GroupResult */
/** @typedef {import("./results.mjs").EntryResult} EntryResult */
/** @typedef {{ name: string, color: string, points: { x: number, y: number }[] }} Line */

/** @type {Readonly<Record<string, string>>} */
const COLORS = { homm: "#0c8599", jax: "#e8590c", tfjs: "#f2a900", onnx: "#7950f2", plain: "#868e96", rivals: "#c2255c", "homm@base": "#66b2bd" };

const STYLE = `
:root { color-scheme: light dark; --ink: #1b1f23; --soft: #57606a; --rule: #d0d7de; --ground: #fff; --panel: #f6f8fa; --good: #1a7f37; --bad: #b42318; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa4af; --rule: #30363d; --ground: #0d1117; --panel: #161b22; --good: #3fb950; --bad: #ff7b72; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 70rem; }
h1 { font-size: 1.6rem; margin: 0 0 0.25rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 0.5rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.5rem 0 0.25rem; }
p, li { max-width: 60rem; }
.soft { color: var(--soft); }
.warning { color: var(--bad); font-weight: 600; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.87rem; }
th, td { text-align: right; padding: 0.2rem 0.7rem; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; color: var(--soft); }
.scroll { overflow-x: auto; }
.met { color: var(--good); font-weight: 600; }
.missed { color: var(--bad); font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 1rem 2rem; }
svg { width: 100%; max-width: 36rem; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .axis { stroke: var(--rule); stroke-width: 1; }
svg .soft-text { fill: var(--soft); }
details { margin: 0.4rem 0 0; font-size: 0.87rem; }
summary { cursor: pointer; color: var(--soft); }
`;

/** @param {unknown} value */
function escaped(value) {
  return String(value).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c] ?? c);
}

/** @param {readonly string[]} head @param {readonly (readonly string[])[]} rows cells as HTML */
function table(head, rows) {
  const cells = (/** @type {readonly string[]} */ row, /** @type {string} */ tag) => row.map((cell) => `<${tag}>${cell}</${tag}>`).join("");
  return `<div class="scroll"><table><thead><tr>${cells(head, "th")}</tr></thead><tbody>${rows.map((row) => `<tr>${cells(row, "td")}</tr>`).join("")}</tbody></table></div>`;
}

/** @param {EntryResult} entry */
function colorOf({ contender, role, name }) {
  if (role === "ceiling") return "none";
  if (name === "homm unmasked") return "#66b2bd";
  return COLORS[contender] ?? "#868e96";
}

/** Speed of each entry as a share of the fastest: the longest bar is the best. @param {readonly EntryResult[]} entries */
function bars(entries) {
  const measured = entries.filter((e) => e.status === "ok" && e.samples?.length);
  if (measured.length === 0) return "";
  const [row, label, width] = [26, 150, 560];
  const times = measured.map((e) => median(e.samples ?? []));
  const best = Math.min(...times);
  const space = width - label - 150;
  const lines = measured.map((entry, i) => {
    const length = (space * best) / (times[i] ?? Number.NaN);
    const y = i * row;
    const isCeiling = entry.role === "ceiling";
    const fill = isCeiling ? 'fill="none" stroke="currentColor" stroke-dasharray="3 3"' : `fill="${colorOf(entry)}"`;
    const text = `${short((times[i] ?? Number.NaN) / best)}× · ${short(times[i] ?? Number.NaN)} ms`;
    return `<text x="${label - 8}" y="${y + 17}" text-anchor="end">${escaped(entry.name)}</text>
<rect x="${label}" y="${y + 4}" width="${Math.max(1, length).toFixed(1)}" height="${row - 9}" rx="2" ${fill}/>
<text x="${(label + Math.max(1, length) + 6).toFixed(1)}" y="${y + 17}" class="soft-text">${text}</text>`;
  });
  return `<svg viewBox="0 0 ${width} ${measured.length * row}" role="img" aria-label="speed relative to the fastest">${lines.join("\n")}</svg>`;
}

/** Powers of ten, and where there are few of them also 2 and 5. @param {number} low @param {number} high */
function ticks(low, high) {
  const from = Math.floor(Math.log10(low));
  const to = Math.ceil(Math.log10(high));
  const steps = to - from > 3 ? [1] : [1, 2, 5];
  return Array.from({ length: to - from + 1 }, (_, i) => steps.map((step) => step * 10 ** (from + i)))
    .flat()
    .filter((value) => value >= low && value <= high);
}

/** @param {readonly Line[]} lines @param {{ x: string, y: string, sizes: readonly number[] }} labels */
function logLog(lines, { x: xLabel, y: yLabel, sizes }) {
  const points = lines.flatMap((line) => line.points);
  if (points.length === 0) return "";
  const [width, height, left, right, top, bottom] = [560, 340, 58, 130, 14, 42];
  const range = (/** @type {number[]} */ values) => /** @type {const} */ ([Math.min(...values) / 1.3, Math.max(...values) * 1.3]);
  const [x0, x1] = range(points.map(({ x }) => x));
  const [y0, y1] = range(points.map(({ y }) => y));
  const px = (/** @type {number} */ x) => left + ((width - left - right) * Math.log(x / x0)) / Math.log(x1 / x0);
  const py = (/** @type {number} */ y) => height - bottom - ((height - top - bottom) * Math.log(y / y0)) / Math.log(y1 / y0);
  const parts = [];
  for (const tick of ticks(y0, y1)) {
    parts.push(`<line class="axis" x1="${left}" x2="${width - right}" y1="${py(tick).toFixed(1)}" y2="${py(tick).toFixed(1)}"/>`);
    parts.push(
      `<text x="${left - 6}" y="${(py(tick) + 4).toFixed(1)}" text-anchor="end" class="soft-text">${short(tick).replace(/\.0+$/, "")}</text>`,
    );
  }
  for (const tick of sizes) {
    parts.push(`<line class="axis" x1="${px(tick).toFixed(1)}" x2="${px(tick).toFixed(1)}" y1="${top}" y2="${height - bottom}"/>`);
    const text = tick >= 1024 ? `${tick / 1024}k` : String(tick);
    parts.push(`<text x="${px(tick).toFixed(1)}" y="${height - bottom + 16}" text-anchor="middle" class="soft-text">${text}</text>`);
  }
  parts.push(`<text x="${(left + width - right) / 2}" y="${height - 6}" text-anchor="middle" class="soft-text">${escaped(xLabel)}</text>`);
  parts.push(
    `<text x="14" y="${(top + height - bottom) / 2}" text-anchor="middle" class="soft-text" transform="rotate(-90 14 ${(top + height - bottom) / 2})">${escaped(yLabel)}</text>`,
  );
  // Names stand at the ends of the lines, pushed apart.
  const ends = lines.flatMap((line) => {
    const end = line.points.at(-1);
    return end ? [{ line, end, y: py(end.y) }] : [];
  });
  ends.sort((a, b) => a.y - b.y);
  for (const [i, item] of ends.entries()) item.y = Math.max(item.y, (ends[i - 1]?.y ?? Number.NEGATIVE_INFINITY) + 15);
  for (const { line, end, y } of ends) {
    const path = line.points.map((p) => `${px(p.x).toFixed(1)},${py(p.y).toFixed(1)}`).join(" ");
    parts.push(`<polyline points="${path}" fill="none" stroke="${line.color}" stroke-width="2"/>`);
    for (const p of line.points) parts.push(`<circle cx="${px(p.x).toFixed(1)}" cy="${py(p.y).toFixed(1)}" r="3.5" fill="${line.color}"/>`);
    parts.push(
      `<line x1="${px(end.x).toFixed(1)}" y1="${py(end.y).toFixed(1)}" x2="${width - right + 8}" y2="${y.toFixed(1)}" stroke="${line.color}" stroke-width="1" stroke-dasharray="2 3"/>`,
    );
    parts.push(`<text x="${width - right + 12}" y="${(y + 4).toFixed(1)}" style="fill:${line.color}">${escaped(line.name)}</text>`);
  }
  return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escaped(yLabel)} by ${escaped(xLabel)}">${parts.join("\n")}</svg>`;
}

/** Of the methods among the rivals; the same methods at equal FLOPs are paler. */
const RIVAL_COLORS = { HoM: "#0c8599", PoM: "#2b8a3e", attention: "#e8590c", Performer: "#7950f2", RFA: "#f2a900", RM: "#c2255c" };

/** Time and memory of the rivals against N. @param {readonly GroupResult[]} groups */
function rivalsPlots(groups) {
  const { names, sizes } = rivalsOf(groups);
  const linesOf = (/** @type {(entry: EntryResult) => number | undefined} */ value) =>
    names.map((name) => ({
      name,
      color: `${RIVAL_COLORS[/** @type {keyof typeof RIVAL_COLORS} */ (name.split(",")[0])] ?? "#868e96"}${name.includes(",") ? "88" : ""}`,
      points: groups.flatMap((group) => {
        const entry = entryOf(group, name);
        const y = entry && value(entry);
        return y === undefined || group.size === undefined ? [] : [{ x: group.size, y }];
      }),
    }));
  const faster = overtakings(groups).map(({ name, size }) => `<li>${escaped(name)}: from N=${Math.round(size).toLocaleString("en-US")} on</li>`);
  return `<h3>${escaped(groups[0]?.series)}</h3><div class="plots">
<div>${logLog(
    linesOf(({ ms }) => ms?.median),
    { x: "tokens N", y: "ms", sizes },
  )}</div>
<div>${logLog(
    linesOf(({ peakBytes }) => (peakBytes ?? 0) / 1e6),
    { x: "tokens N", y: "peak memory, MB", sizes },
  )}</div>
</div>${faster.length > 0 ? `<p>Faster than attention:</p><ul>${faster.join("")}</ul>` : ""}`;
}

/** Milliseconds against N, one line an entry. @param {readonly GroupResult[]} groups */
function seriesPlot(groups) {
  /** @type {Map<string, Line>} */
  const lines = new Map();
  const sizes = groups.flatMap(({ size }) => size ?? []);
  for (const group of groups) {
    for (const { name, contender } of group.entries) {
      const entry = entryOf(group, name);
      if (!entry || group.size === undefined) continue;
      const line = lines.get(name) ?? { name: name.replace(" attention", ""), color: COLORS[contender] ?? "#868e96", points: [] };
      line.points.push({ x: group.size, y: entry.ms.median });
      lines.set(name, line);
    }
  }
  return logLog([...lines.values()], { x: "tokens N", y: "ms", sizes });
}

/** @param {GroupResult} group */
function scalingPlot(group) {
  const points = group.entries.flatMap((entry) =>
    entry.status === "ok" && entry.samples?.length && entry.task.kind === "layer" && entry.contender === "homm"
      ? [{ x: entry.task.tokens, y: median(entry.samples) }]
      : [],
  );
  return logLog([{ name: "homm", color: COLORS["homm"] ?? "", points }], { x: "tokens N", y: "ms", sizes: points.map(({ x }) => x) });
}

/** @param {GroupResult} group */
function entriesTable(group) {
  const measured = group.entries.filter((e) => e.status === "ok" && e.samples?.length);
  const best = measured.filter(({ role }) => role === "contender").sort((a, b) => median(a.samples ?? []) - median(b.samples ?? []))[0];
  const rows = measured.map((entry) => [
    escaped(entry.name),
    `${short(median(entry.samples ?? []))} ms`,
    `${short(entry.ms?.q1 ?? Number.NaN)} to ${short(entry.ms?.q3 ?? Number.NaN)}`,
    best?.samples && group.kind !== "scaling" ? `${short(ratio(entry.samples ?? [], best.samples).median)}×` : "",
    entry.ceiling ? `${short(100 * entry.ceiling.share)} % of ${escaped(entry.ceiling.name)}` : escaped(entry.details?.variant ?? ""),
    entry.perCall ? short(entry.perCall.dispatches) : "",
    entry.perCall ? short(entry.perCall.submits) : "",
    entry.role === "ceiling" ? "" : megabytes(entry.peakBytes),
    entry.firstResultMs === undefined ? "" : `${short(entry.firstResultMs)} ms`,
    entry.error === undefined ? "" : entry.error.toExponential(0),
  ]);
  const head = ["", "median", "quartiles", "× best", "of its ceiling", "dispatches", "submits", "peak memory", "first result", "error"];
  const failures = group.entries
    .filter(({ status }) => status !== "ok")
    .map(({ name, status, reason }) => `<li>${escaped(name)}: ${status}, ${escaped(reason ?? "")}</li>`);
  const clocks = group.entries
    .filter(({ kernels }) => kernels?.length)
    .map(({ name, kernels }) => `<li>${escaped(name)}: ${kernels?.map(({ kernel, ms }) => `${escaped(kernel)} ${short(ms)} ms`).join(", ")}</li>`);
  return [
    `<details><summary>numbers</summary>${table(head, rows)}`,
    clocks.length > 0 ? `<p>By the GPU's clock, each dispatch alone:</p><ul>${clocks.join("")}</ul>` : "",
    "</details>",
    failures.length > 0 ? `<ul class="soft">${failures.join("")}</ul>` : "",
  ].join("");
}

/** @param {GroupResult} group */
function createTable(group) {
  const rows = group.entries.map(({ name, status, reason, firstResultSamples = [], startMs }) =>
    status === "ok"
      ? [
          escaped(name),
          `${short(median(firstResultSamples))} ms`,
          `${short(Math.min(...firstResultSamples))} to ${short(Math.max(...firstResultSamples))}`,
          `${short(startMs ?? Number.NaN)} ms`,
        ]
      : [escaped(name), status, escaped(reason ?? ""), ""],
  );
  return table(["", "to the first result", "min to max", "before: library and device"], rows);
}

/** @param {BenchDocument} document */
export function htmlReport(document) {
  const { machine, groups, targets, ceilings, contenders, againstBase } = document;
  const { adapter } = machine;
  const name = [adapter.vendor, adapter.architecture, adapter.description].filter(Boolean).join(", ");
  const section = (/** @type {string} */ title, /** @type {string} */ content) => (content === "" ? "" : `<h2>${title}</h2>${content}`);
  const ofKind = (/** @type {GroupResult["kind"]} */ kind) => groups.filter((group) => group.kind === kind);
  const withBars = (/** @type {GroupResult[]} */ list) =>
    list.length === 0
      ? ""
      : `<div class="plots">${list.map((group) => `<div><h3>${escaped(group.id)}</h3><p class="soft">${escaped(group.title)}</p>${bars(group.entries)}${entriesTable(group)}</div>`).join("")}</div>`;

  const targetRows = targets.map(({ name, value, low, high, limit, sense, met, unit }) => {
    const suffix = unit === "" || unit === "×" ? unit : ` ${unit}`;
    const spread = low === undefined || high === undefined ? "" : `${short(low)} to ${short(high)}`;
    return [
      escaped(name),
      `${short(value)}${suffix}`,
      spread,
      `${sense} ${limit}${suffix}`,
      met ? '<span class="met">met</span>' : '<span class="missed">missed</span>',
    ];
  });
  const series = ["attention", "causal attention"].map((name) => groups.filter((group) => group.series === name)).filter((list) => list.length > 1);
  const attentionPlots = series.map((list) => `<div><h3>${escaped(list[0]?.series)}</h3>${seriesPlot(list)}</div>`).join("");
  const attention = ofKind("attention");
  const rivals = ["rivals", "causal rivals"].map((name) => groups.filter((group) => group.series === name)).filter((list) => list.length > 1);
  const busy = machine.load > 0.5 * machine.cores;

  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>homm-webgpu bench, ${escaped(document.date.slice(0, 10))}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>homm-webgpu bench</h1>
<p>${escaped(machine.host)} ${escaped(machine.hostVersion)} on ${escaped(name)} (${adapter.software ? "software" : "GPU"}; f16 ${adapter.features.includes("shader-f16") ? "yes" : "no"}, subgroups ${adapter.subgroups.join(" to ")})</p>
<p class="soft">${machine.cores} cores, ${escaped(machine.cpu)}, ${escaped(machine.system)} · commit ${escaped(document.commit.slice(0, 10))}${document.changed ? " with changes" : ""} · ${escaped(document.date)} · ${document.options.rounds} interleaved rounds, medians</p>
${busy ? `<p class="warning">Other work was running (load ${machine.load.toFixed(1)} on ${machine.cores} cores): only ratios mean something here.</p>` : ""}
${section("Targets", targetRows.length > 0 ? table(["", "median", "quartiles", "limit", ""], targetRows) : "")}
${section(
  "This version against another",
  againstBase.length > 0
    ? table(
        [`time / that of ${escaped(document.base?.ref)}`, "median", "quartiles"],
        againstBase.map(({ name, median, q1, q3 }) => [escaped(name), `${short(median)}×`, `${short(q1)} to ${short(q3)}`]),
      )
    : "",
)}
${section(
  "What this adapter can do at best",
  ceilings.length > 0
    ? table(
        ["plain WGSL", "rate", "fastest of its variants"],
        ceilings.map(({ name, value, unit, variant }) => [escaped(name), withPrefix(value, unit), escaped(variant)]),
      )
    : "",
)}
${section("The moment stage against the matrix product in it", withBars(ofKind("moments")))}
${section("The layer", withBars(ofKind("layer")))}
${section("Decoding", withBars(ofKind("decode")))}
${section("Softmax attention and the layer of the same width", attention.length > 0 ? `<div class="plots">${attentionPlots}</div>${withBars(attention)}` : "")}
${section("The rivals, at equal width and at equal FLOPs", `${rivals.map(rivalsPlots).join("")}${withBars(ofKind("rivals"))}`)}
${section(
  "Linear in N",
  ofKind("scaling")
    .map((group) => `<div class="plots"><div><p class="soft">${escaped(group.title)}</p>${scalingPlot(group)}</div></div>${entriesTable(group)}`)
    .join(""),
)}
${section("From nothing compiled to the first result", ofKind("create").map(createTable).join(""))}
${section(
  "Who takes part",
  table(
    ["", "version", "page weight, gzip", "plain"],
    contenders.map(({ name, title, version, weight }) => [
      `${escaped(name)}: ${escaped(title)}`,
      escaped(version),
      withPrefix(weight?.gzip ?? Number.NaN, "B"),
      withPrefix(weight?.bytes ?? Number.NaN, "B"),
    ]),
  ),
)}
<p class="soft">Bars show speed: the longest is the fastest, a dashed one is a ceiling. How this is measured, and what may be concluded from it: docs/benchmarks.md.</p>
</body>
</html>
`;
}
