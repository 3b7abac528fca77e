import { Chart } from "../shared/chart.ts";
import { allow, download, element, make } from "../shared/dom.ts";
import { adapterName, Engine, EngineLost } from "../shared/engine.ts";
import { bytes, grouped, milliseconds, rate, short } from "../shared/format.ts";
import { showBanner } from "../shared/notices.ts";
import { ProgressLine } from "../shared/progress.ts";
import { type MethodName, methods, sizeOf } from "./methods.ts";
import type { CompareCalls, CompareOptions, Events, Measured, Point } from "./worker.ts";

const page = {
  form: element("form", HTMLFormElement),
  dim: element("dim", HTMLSelectElement),
  tokens: element("tokens", HTMLInputElement),
  causal: element("causal", HTMLInputElement),
  run: element("run", HTMLButtonElement),
  stop: element("stop", HTMLButtonElement),
  json: element("json", HTMLButtonElement),
  adapter: element("adapter"),
  clock: element("clock"),
  finding: element("finding"),
  times: element("times", HTMLTableElement),
  memory: element("memory", HTMLTableElement),
  work: element("work", HTMLTableElement),
};
const progress = new ProgressLine(element("status"));

interface Run {
  readonly options: CompareOptions;
  readonly points: Point[];
}

let ready = false;
let running = false;
let run: Run | undefined;
let adapter = { name: "", software: false, timestamps: false };

const series = methods.map(({ label, line, dashed = false }) => ({ label, line, dashed, points: true }));
const x = { label: "tokens", format: grouped, base: 2 } as const;
const timeChart = new Chart(element("time-chart"), { series, x, y: { label: "a call", format: milliseconds } });
const memoryChart = new Chart(element("memory-chart"), { series, x, y: { label: "bytes", format: bytes } });

const engine = new Engine<CompareCalls, Events>({
  spawn: () => new Worker(new URL("./worker.ts", import.meta.url), { type: "module" }),
  on: {
    working({ step, fraction }) {
      progress.show(step, fraction);
    },
    point(point) {
      run?.points.push(point);
      show();
    },
  },
  stopped(because) {
    ready = false;
    running = false;
    update();
    progress.show(because === "lost" ? "Interrupted." : "Not available.");
  },
  async prepare(found, again) {
    adapter = found;
    page.adapter.textContent = adapterName(found);
    page.clock.textContent = found.timestamps
      ? "the GPU's own timestamps, which browsers may round to 0.1 ms"
      : "from submission to completion; this adapter has no timestamps";
    // On a processor thousands of tokens take minutes.
    if (found.software && !again && page.tokens.value === page.tokens.defaultValue) page.tokens.value = "1024";
    ready = true;
    progress.show("Ready.");
    update();
    return again && run ? "The measurement was interrupted; Run starts it again." : undefined;
  },
});

page.form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (ready && !running) void measure();
});
page.stop.addEventListener("click", stop);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
page.json.addEventListener("click", () => {
  if (run) download("compare.json", JSON.stringify(report(run), undefined, 2), "application/json");
});

const nothing = methods.map(() => [null, null]);
timeChart.show([128, 8192], nothing, "Nothing has been measured yet.");
memoryChart.show([128, 8192], nothing, "Nothing has been measured yet.");
for (const table of [page.times, page.memory, page.work]) fill(table, [], "Nothing has been measured yet.");
update();
void engine.start();

async function measure(): Promise<void> {
  const at = new FormData(page.form).get("at") === "flops" ? "flops" : "width";
  const options: CompareOptions = { dim: Number(page.dim.value), tokens: page.tokens.valueAsNumber, causal: page.causal.checked, at };
  run = { options, points: [] };
  running = true;
  page.finding.hidden = true;
  for (const table of [page.times, page.memory, page.work]) fill(table, [], "Being measured …");
  update();
  try {
    const complete = await engine.call("compare", options);
    running = false;
    progress.show(complete ? "Done." : "Stopped.");
  } catch (error) {
    if (error instanceof EngineLost) return;
    running = false;
    progress.show("Stopped.");
    showBanner("wrong", `The measurement broke off. ${(error as Error).message}`, { label: "Close", press: () => {} });
  } finally {
    update();
  }
}

function stop(): void {
  if (running && ready) {
    void engine.call("stop");
    progress.show("Stopping …", null);
  }
}

function show(): void {
  if (!run || run.points.length === 0) return;
  const { points, options } = run;
  const tokens = points.map((point) => point.tokens);
  const lines = (value: (measured: Measured) => number | undefined) =>
    methods.map(({ name }) => points.map((point) => ofMethod(point, name, value) ?? null));
  const said = finding(points);
  page.finding.textContent = said;
  page.finding.hidden = false;
  const range = [Math.min(128, options.tokens), options.tokens] as const;
  const first = overtakings(points).find(({ name, always }) => name === "hom" && !always);
  const marks = first ? [{ x: first.tokens, label: `the moment layer is faster from ${grouped(first.tokens)} on` }] : [];
  timeChart.show(
    tokens,
    lines(({ ms }) => ms),
    `Time of a call. ${said}`,
    range,
    marks,
  );
  memoryChart.show(
    tokens,
    lines((measured) => measured.bytes),
    `Memory of a call. ${said}`,
    range,
  );
  const rows = (text: (measured: Measured) => string) =>
    points.map((point) => ({ head: grouped(point.tokens), cells: methods.map(({ name }) => ofMethod(point, name, text) ?? "too long") }));
  fill(
    page.times,
    rows(({ ms }) => milliseconds(ms ?? Number.NaN)),
  );
  fill(
    page.memory,
    rows((measured) => bytes(measured.bytes)),
  );
  fill(
    page.work,
    rows(({ flops, layer }) => `${rate(flops, "FLOP")}, ${sizeOf(layer)}`),
  );
  update();
}

function ofMethod<T>({ measured }: Point, name: MethodName, value: (measured: Measured) => T): T | undefined {
  const found = measured.find(({ method }) => method === name);
  return found && value(found);
}

function fill(table: HTMLTableElement, rows: readonly { head: string; cells: readonly string[] }[], otherwise = ""): void {
  const heads = ["Tokens", ...methods.map(({ label }) => label)].map((textContent) => make("th", { scope: "col", textContent }));
  table.tHead?.replaceChildren(make("tr", {}, ...heads));
  const body = rows.map(({ head, cells }) =>
    make("tr", {}, make("th", { scope: "row", textContent: head }), ...cells.map((text) => make("td", { textContent: unbroken(text) }))),
  );
  const empty = make("tr", {}, make("td", { colSpan: heads.length, className: "empty", textContent: otherwise }));
  table.tBodies[0]?.replaceChildren(...(rows.length > 0 ? body : [empty]));
}

/** A number stays with its unit: lines break behind a comma only. */
function unbroken(text: string): string {
  return text.replaceAll(/(?<!,) /g, "\u00a0");
}

/** What the lines say, in a few sentences. */
function finding(points: readonly Point[]): string {
  const last = points.findLast((point) => ofMethod(point, "attention", ({ ms }) => ms) !== undefined) ?? points.at(-1);
  const known = methods.flatMap(({ name, label }) => {
    const ms = last && ofMethod(last, name, (measured) => measured.ms);
    return ms === undefined ? [] : [{ name, label, ms }];
  });
  const [fastest] = known.toSorted((a, b) => a.ms - b.ms);
  if (!last || !fastest) return "";
  const attention = known.find(({ name }) => name === "attention");
  const times = attention && fastest.name !== "attention" ? `, ${short(attention.ms / fastest.ms)} times as fast as softmax attention` : "";
  const start = `At ${grouped(last.tokens)} tokens the fastest is ${article(fastest.label)}${times}.`;
  const overtaken = overtakings(points).map(
    ({ label, tokens, always }) => `${article(label)} ${always ? "at every length" : `from about ${grouped(tokens)} tokens on`}`,
  );
  return overtaken.length === 0 ? start : `${start} Faster than softmax attention: ${overtaken.join(", ")}.`;
}

function article(label: string): string {
  return label === "moment layer" || label === "polynomial mixer" ? `the ${label}` : label;
}

interface Overtaking {
  readonly name: MethodName;
  readonly label: string;
  readonly tokens: number;
  /** From the first length on; then `tokens` is that length. */
  readonly always: boolean;
}

/** Where the time of each method falls below attention's for good, on logarithmic axes. Those that end above it are left out. */
function overtakings(points: readonly Point[]): Overtaking[] {
  return methods.flatMap(({ name, label }): Overtaking[] => {
    const both = points.flatMap((point) => {
      const [own, attention] = [ofMethod(point, name, ({ ms }) => ms), ofMethod(point, "attention", ({ ms }) => ms)];
      return own && attention && name !== "attention" ? [{ tokens: point.tokens, ratio: Math.log(attention / own) }] : [];
    });
    const slower = both.findLastIndex(({ ratio }) => ratio <= 0);
    const [before, after] = [both[slower], both[slower + 1]];
    if (!after) return [];
    if (!before) return [{ name, label, tokens: after.tokens, always: true }];
    const along = -before.ratio / (after.ratio - before.ratio);
    const tokens = Math.exp(Math.log(before.tokens) + along * (Math.log(after.tokens) - Math.log(before.tokens)));
    return [{ name, label, tokens, always: false }];
  });
}

function report({ options, points }: Run) {
  return {
    adapter: { ...adapter, browser: navigator.userAgent },
    options,
    fasterThanAttention: Object.fromEntries(overtakings(points).map(({ name, tokens }) => [name, tokens])),
    calls: points.flatMap(({ tokens, measured }) => measured.map((entry) => ({ tokens, ...entry }))),
  };
}

function update(): void {
  allow(
    new Map([
      [page.stop, ready && running],
      [page.run, ready && !running],
      [page.json, !running && (run?.points.length ?? 0) > 0],
    ]),
  );
}
