import { Chart } from "../shared/chart.ts";
import { homFlopsPerToken } from "../shared/costs.ts";
import { allow, download, element, make } from "../shared/dom.ts";
import { adapterName, Engine, EngineLost } from "../shared/engine.ts";
import { grouped, milliseconds, rate, short } from "../shared/format.ts";
import { showBanner } from "../shared/notices.ts";
import { ProgressLine } from "../shared/progress.ts";
import type { Events, KernelsCalls, LayerName, MeasureOptions, Point } from "./worker.ts";

const page = {
  form: element("form", HTMLFormElement),
  dim: element("dim", HTMLSelectElement),
  order: element("order", HTMLSelectElement),
  expand: element("expand", HTMLSelectElement),
  tokens: element("tokens", HTMLInputElement),
  causal: element("causal", HTMLInputElement),
  run: element("run", HTMLButtonElement),
  stop: element("stop", HTMLButtonElement),
  copy: element("copy", HTMLButtonElement),
  json: element("json", HTMLButtonElement),
  adapter: element("adapter"),
  clock: element("clock"),
  finding: element("finding"),
  sweep: element("sweep"),
  kernels: element("kernels"),
  kernelsCaption: element("kernels-caption"),
};
const progress = new ProgressLine(element("status"));

const NAMES: Readonly<Record<LayerName, string>> = { moments: "Moment layer", attention: "Softmax attention" };

interface Run {
  readonly options: MeasureOptions;
  readonly points: Point[];
  readonly kernels: Events["kernels"][];
}

let ready = false;
let running = false;
let run: Run | undefined;
let adapter = { name: "", software: false, timestamps: false };

const chart = new Chart(element("sweep-chart"), {
  series: [
    { label: "moment layer", line: "a", points: true },
    { label: "softmax attention", line: "b", points: true },
  ],
  x: { label: "tokens", format: grouped, base: 2 },
  y: { label: "a call", format: milliseconds },
});

const engine = new Engine<KernelsCalls, Events>({
  spawn: () => new Worker(new URL("./worker.ts", import.meta.url), { type: "module" }),
  on: {
    working({ step, fraction }) {
      progress.show(step, fraction);
    },
    point(point) {
      run?.points.push(point);
      showPoints();
    },
    kernels(times) {
      run?.kernels.push(times);
      showKernels();
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
      : "from submission to completion; this adapter has no timestamps, so single kernels are not timed";
    // On a processor thousands of tokens take minutes.
    if (found.software && !again && page.tokens.value === page.tokens.defaultValue) page.tokens.value = "1024";
    ready = true;
    progress.show("Ready.");
    update();
    if (again && run) return "The measurement was interrupted; Run starts it again.";
    return undefined;
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
page.copy.addEventListener("click", () => void copy());
page.json.addEventListener("click", () => {
  if (run) download("kernels.json", JSON.stringify(report(run), undefined, 2), "application/json");
});

chart.show(
  [128, 4096],
  [
    [null, null],
    [null, null],
  ],
  "Nothing has been measured yet.",
);
update();
void engine.start();

async function measure(): Promise<void> {
  const number = (select: HTMLSelectElement) => Number(select.value);
  const options = {
    dim: number(page.dim),
    order: number(page.order),
    orderExpand: number(page.expand),
    tokens: page.tokens.valueAsNumber,
    causal: page.causal.checked,
  };
  run = { options, points: [], kernels: [] };
  running = true;
  page.finding.hidden = true;
  empty(page.sweep, 5, "Being measured …");
  empty(page.kernels, 6, adapter.timestamps ? "Measured when the whole layers have been." : "This adapter has no timestamps.");
  update();
  try {
    const complete = await engine.call("measure", options);
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
    progress.show("Stopping after this length …", null);
  }
}

function empty(body: HTMLElement, columns: number, text: string): void {
  body.replaceChildren(make("tr", {}, make("td", { colSpan: columns, className: "empty", textContent: text })));
}

function showPoints(): void {
  if (!run) return;
  const { points, options } = run;
  const last = points.at(-1);
  if (!last) return;
  page.finding.textContent = finding(run);
  page.finding.hidden = false;
  chart.show(
    points.map(({ tokens }) => tokens),
    [points.map(({ moments }) => moments ?? null), points.map(({ attention }) => attention ?? null)],
    `Time of a call from 128 tokens on. ${finding(run)}`,
    [Math.min(128, options.tokens), options.tokens],
  );
  const reached = (flops: number, ms: number | undefined) => (ms === undefined ? "–" : rate((1000 * flops) / ms, "FLOP/s"));
  const time = (ms: number | undefined) => (ms === undefined ? "too long" : milliseconds(ms));
  page.sweep.replaceChildren(
    ...points.map((p) =>
      row(grouped(p.tokens), [time(p.moments), reached(p.momentsFlops, p.moments), time(p.attention), reached(p.attentionFlops, p.attention)]),
    ),
  );
  update();
}

function showKernels(): void {
  if (!run) return;
  const [first] = run.kernels;
  page.kernelsCaption.textContent = `Kernel by kernel, at ${grouped(first?.tokens ?? 0)} tokens`;
  page.kernels.replaceChildren(
    ...run.kernels.flatMap(({ layer, total, kernels }) => {
      const together = kernels.reduce((all, { ms }) => all + ms, 0);
      const count = kernels.reduce((all, { dispatches }) => all + dispatches, 0);
      return [
        make("tr", { className: "group" }, make("th", { scope: "colgroup", colSpan: 6, textContent: NAMES[layer] })),
        ...kernels.map(({ kernel, dispatches, ms, flops, bytes }) => {
          const share = together > 0 ? ms / together : 0;
          const cells = [
            grouped(dispatches),
            milliseconds(ms),
            `${Math.round(100 * share)} %`,
            flops === undefined || ms === 0 ? "–" : rate((1000 * flops) / ms, "FLOP/s"),
            ms === 0 ? "–" : rate((1000 * bytes) / ms, "B/s"),
          ];
          const made = row(kernel, cells);
          const cell = made.cells[3];
          cell?.classList.add("share");
          cell?.style.setProperty("--share", `${100 * share}%`);
          return made;
        }),
        row("as one call", [grouped(count), milliseconds(total), "", "", ""], "total"),
      ];
    }),
  );
}

function row(name: string, cells: readonly string[], className = ""): HTMLTableRowElement {
  return make("tr", { className }, make("th", { scope: "row", textContent: name }), ...cells.map((textContent) => make("td", { textContent })));
}

/** What the lines say, in a sentence or two. */
function finding({ points, options }: Run): string {
  const both = points.filter((p) => p.moments !== undefined && p.attention !== undefined);
  const last = both.at(-1);
  if (!last) return "";
  const [moments = 0, attention = 0] = [last.moments, last.attention];
  const [faster, slower, times] =
    moments < attention ? ["the moment layer", "attention", attention / moments] : ["attention", "the moment layer", moments / attention];
  const compared = `At ${grouped(last.tokens)} tokens ${faster} is ${short(times)} times as fast as ${slower}.`;
  const crossing = measuredCrossover(both);
  const counted = `Counting operations, they should meet at ${grouped(countedCrossover(options))}.`;
  if (crossing !== undefined) return `${compared} They meet at about ${grouped(crossing)} tokens. ${counted}`;
  return `${compared} Their lines do not cross up to here. ${counted}`;
}

/** Where the lines cross, on logarithmic axes; the last place if there are several. */
function measuredCrossover(points: readonly Point[]): number | undefined {
  const ratio = ({ moments = 1, attention = 1 }: Point) => Math.log(attention / moments);
  for (let i = points.length - 1; i > 0; i--) {
    const [before, after] = [points[i - 1], points[i]];
    if (!before || !after || ratio(before) > 0 || ratio(after) <= 0) continue;
    const along = -ratio(before) / (ratio(after) - ratio(before));
    return Math.exp(Math.log(before.tokens) + along * (Math.log(after.tokens) - Math.log(before.tokens)));
  }
  return undefined;
}

/** Tokens N at which 6·k·e·N·D² (and the smaller terms) are 8·N·D² + 4·N²·D, half of the square if causal. */
function countedCrossover({ causal, ...shape }: MeasureOptions): number {
  return Math.max(1, (homFlopsPerToken(shape) - 8 * shape.dim ** 2) / ((causal ? 2 : 4) * shape.dim));
}

function report({ options, points, kernels }: Run) {
  const crossover = measuredCrossover(points.filter((p) => p.moments !== undefined && p.attention !== undefined));
  return {
    adapter: { ...adapter, browser: navigator.userAgent },
    options,
    crossover: { measured: crossover ?? null, counted: countedCrossover(options) },
    calls: points,
    kernels: kernels.flatMap(({ layer, tokens, kernels: all }) => all.map((entry) => ({ layer, tokens, ...entry }))),
  };
}

/** The tables as a spreadsheet takes them. */
async function copy(): Promise<void> {
  const tables = [element("sweep-table", HTMLTableElement), element("kernel-table", HTMLTableElement)];
  const lines = tables.flatMap((table) => [...[...table.rows].map((line) => [...line.cells].map((cell) => cell.textContent.trim()).join("\t")), ""]);
  try {
    await navigator.clipboard.writeText(lines.join("\n"));
    progress.show("The tables are in the clipboard.");
  } catch {
    const [first, second] = tables;
    const range = document.createRange();
    if (first && second) {
      range.setStartBefore(first);
      range.setEndAfter(second);
    }
    getSelection()?.removeAllRanges();
    getSelection()?.addRange(range);
    progress.show("The browser does not let a page copy here; the tables are selected, so that you can.");
  }
}

function update(): void {
  const measured = !running && (run?.points.length ?? 0) > 0;
  allow(
    new Map([
      [page.stop, ready && running],
      [page.run, ready && !running],
      [page.copy, measured],
      [page.json, measured],
    ]),
  );
}
