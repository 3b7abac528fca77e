import { Chart } from "../shared/chart.ts";
import { attentionFlopsPerToken, attentionMemory, crossover, homFlopsPerToken, type LayerShape } from "../shared/costs.ts";
import { allow, element, make } from "../shared/dom.ts";
import { adapterName, Engine, EngineLost } from "../shared/engine.ts";
import { bytes, grouped, milliseconds } from "../shared/format.ts";
import { showBanner } from "../shared/notices.ts";
import { ProgressLine } from "../shared/progress.ts";
import type { Events, LongCalls } from "./worker.ts";

const page = {
  form: element("form", HTMLFormElement),
  dim: element("dim", HTMLSelectElement),
  order: element("order", HTMLSelectElement),
  expand: element("expand", HTMLSelectElement),
  tokens: element("tokens", HTMLInputElement),
  start: element("start", HTMLButtonElement),
  stop: element("stop", HTMLButtonElement),
  adapter: element("adapter"),
  crossover: element("crossover"),
  seen: element("seen"),
  memory: element("memory"),
  pace: element("pace"),
  attentionMemory: element("attention-memory"),
  attentionPace: element("attention-pace"),
  left: element("left"),
  numbers: element("numbers"),
};
const progress = new ProgressLine(element("status"));

/** Measured points are gathered in this many bins a decade of tokens. */
const BINS = 16;
const FIRST = 100;

interface Bin {
  tokens: number;
  ms: number;
  /** Where the bin has got to. */
  seen: number;
  bytes: number;
}

interface Run {
  readonly shape: LayerShape;
  readonly tokens: number;
  readonly bins: Map<number, Bin>;
  saved?: Uint8Array<ArrayBuffer>;
}

let ready = false;
let run: Run | undefined;
let running = false;

const x = { label: "tokens seen", format: compact };
const timeChart = new Chart(element("pace-chart"), {
  series: [
    { label: "this layer, measured", line: "a", points: true },
    { label: "attention, computed", line: "b", dashed: true },
  ],
  x,
  y: { label: "a token", format: milliseconds },
});
const memoryChart = new Chart(element("memory-chart"), {
  series: [
    { label: "this layer's state", line: "a" },
    { label: "attention's keys and values", line: "b", dashed: true },
  ],
  x,
  y: { label: "bytes", format: bytes },
});

const engine = new Engine<LongCalls, Events>({
  spawn: () => new Worker(new URL("./worker.ts", import.meta.url), { type: "module" }),
  on: {
    working({ step }) {
      progress.show(step, null);
    },
    streamed: follow,
    saved(state) {
      if (run) run.saved = state;
    },
  },
  stopped(because) {
    ready = false;
    update();
    progress.show(because === "lost" ? "Interrupted." : "Not available.");
  },
  async prepare(adapter, again) {
    page.adapter.textContent = adapterName(adapter);
    ready = true;
    if (!running) progress.show("Ready.");
    update();
    if (!again || !running || !run) return;
    void stream(run);
    return "The stream goes on from the memory that was saved last.";
  },
});

page.form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (ready && !running) begin();
});
page.form.addEventListener("change", showCrossover);
page.stop.addEventListener("click", stop);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});

showCrossover();
update();
draw({ shape: readShape(), tokens: page.tokens.valueAsNumber, bins: new Map() });
void engine.start();

function begin(): void {
  run = { shape: readShape(), tokens: page.tokens.valueAsNumber, bins: new Map() };
  for (const meter of [page.memory, page.pace, page.attentionMemory, page.attentionPace, page.left]) meter.textContent = "–";
  page.seen.textContent = "0";
  void stream(run);
}

async function stream({ shape, tokens, saved }: Run): Promise<void> {
  running = true;
  update();
  try {
    const seen = await engine.call("stream", { ...shape, tokens, ...(saved && { from: saved }) });
    running = false;
    progress.show(`${seen < tokens ? "Stopped" : "Done"} after ${grouped(seen)} tokens.`);
    page.left.textContent = "–";
  } catch (error) {
    // After a loss the engine prepares a new worker, and the stream goes on there.
    if (error instanceof EngineLost) return;
    running = false;
    progress.show("Stopped.");
    showBanner("wrong", `The stream broke off. ${(error as Error).message}`, { label: "Close", press: () => {} });
  } finally {
    update();
  }
}

function stop(): void {
  if (running && ready) void engine.call("stop");
}

function follow({ seen, tokens, ms, bytes: size }: Events["streamed"]): void {
  if (!run || tokens === 0) return;
  const key = Math.ceil(BINS * Math.log10(seen));
  const bin = run.bins.get(key) ?? { tokens: 0, ms: 0, seen, bytes: size };
  bin.tokens += tokens;
  bin.ms += ms;
  bin.seen = seen;
  bin.bytes = size;
  run.bins.set(key, bin);
  const { dim } = run.shape;
  const pace = bin.ms / bin.tokens;
  page.seen.textContent = grouped(seen);
  page.memory.textContent = bytes(size);
  page.pace.textContent = milliseconds(pace);
  page.attentionMemory.textContent = bytes(attentionMemory(dim, seen));
  page.attentionPace.textContent = milliseconds(attentionFlopsPerToken(dim, seen) / flopsPerMs(run));
  page.left.textContent = milliseconds(Math.max(0, (run.tokens - seen) * pace));
  progress.show("Streaming …", seen / run.tokens);
  draw(run);
}

/** What this layer reaches on this adapter, over the whole run. */
function flopsPerMs({ shape, bins }: Run): number {
  let tokens = 0;
  let ms = 0;
  for (const bin of bins.values()) {
    tokens += bin.tokens;
    ms += bin.ms;
  }
  return (homFlopsPerToken(shape) * tokens) / ms;
}

function draw(current: Run): void {
  const { shape, tokens, bins } = current;
  const measured = [...bins.values()];
  const last = measured.at(-1);
  // Attention's line is there for the whole axis once a speed is known, so that one sees where it leads.
  const known = measured.map(({ seen }) => seen);
  const axis = [...new Set([FIRST, ...known, ...ticks(tokens), tokens])].sort((a, b) => a - b);
  const at = new Map(measured.map((bin) => [bin.seen, bin]));
  const speed = last ? flopsPerMs(current) : undefined;
  const attentionTimes = axis.map((n) => (speed ? attentionFlopsPerToken(shape.dim, n) / speed : null));
  const attentionBytes = axis.map((n) => attentionMemory(shape.dim, n));
  const range = [FIRST, tokens] as const;
  const said = last
    ? `After ${grouped(last.seen)} tokens: ${milliseconds(last.ms / last.tokens)} a token and ${bytes(last.bytes)} here, ` +
      `${milliseconds(attentionFlopsPerToken(shape.dim, last.seen) / (speed ?? 1))} and ${bytes(attentionMemory(shape.dim, last.seen))} for attention.`
    : "Nothing has been measured yet.";
  const times = axis.map((n) => {
    const bin = at.get(n);
    return bin ? bin.ms / bin.tokens : null;
  });
  timeChart.show(axis, [times, attentionTimes], `Time for a token. ${said}`, range);
  const sizes = axis.map((n) => (last && (at.has(n) || n < last.seen) ? last.bytes : null));
  memoryChart.show(axis, [sizes, attentionBytes], `Memory of the stream. ${said}`, range);
  page.numbers.replaceChildren(
    ...measured
      .filter((_, i) => i % 4 === 0 || i === measured.length - 1)
      .map((bin) => {
        const cells = [
          milliseconds(bin.ms / bin.tokens),
          milliseconds(attentionFlopsPerToken(shape.dim, bin.seen) / (speed ?? 1)),
          bytes(bin.bytes),
          bytes(attentionMemory(shape.dim, bin.seen)),
        ];
        return make(
          "tr",
          {},
          make("th", { scope: "row", textContent: grouped(bin.seen) }),
          ...cells.map((text) => make("td", { textContent: text })),
        );
      }),
  );
}

/** 100, 200, 500, 1,000 and so on below the end. */
function ticks(end: number): number[] {
  const result: number[] = [];
  for (let decade = FIRST; decade < end; decade *= 10) result.push(...[1, 2, 5].map((n) => n * decade).filter((n) => n < end));
  return result;
}

function readShape(): LayerShape {
  const number = (select: HTMLSelectElement) => Number(select.value);
  return { dim: number(page.dim), order: number(page.order), orderExpand: number(page.expand) };
}

function showCrossover(): void {
  page.crossover.textContent = `${grouped(Math.ceil(crossover(readShape())))} tokens, counted`;
}

function update(): void {
  allow(
    new Map([
      [page.stop, ready && running],
      [page.start, ready && !running],
    ]),
  );
}

function compact(value: number): string {
  return value >= 1e6 ? `${value / 1e6} M` : value >= 1000 ? `${Math.round(value / 1000)} k` : String(Math.round(value));
}
