import { Chart } from "../shared/chart.ts";
import { allow, download, element, make, say } from "../shared/dom.ts";
import { adapterName, Engine, EngineLost } from "../shared/engine.ts";
import { grouped, rate as perSecond } from "../shared/format.ts";
import { hideBanner, showBanner } from "../shared/notices.ts";
import { ProgressLine } from "../shared/progress.ts";
import { LossCurve } from "./curve.ts";
import { sentences, sums } from "./examples.ts";
import type { Events, RunReport, TrainCalls, VocabularyKind } from "./worker.ts";

const page = {
  form: element("form", HTMLFormElement),
  text: element("text", HTMLTextAreaElement),
  textProblem: element("text-problem"),
  textFacts: element("text-facts"),
  open: element("open", HTMLButtonElement),
  sums: element("sums", HTMLButtonElement),
  sentences: element("sentences", HTMLButtonElement),
  clear: element("clear", HTMLButtonElement),
  file: element("file", HTMLInputElement),
  dim: element("dim", HTMLSelectElement),
  layers: element("layers", HTMLInputElement),
  context: element("context", HTMLInputElement),
  batch: element("batch", HTMLInputElement),
  steps: element("steps", HTMLInputElement),
  rate: element("rate", HTMLInputElement),
  vocabulary: element("vocabulary", HTMLSelectElement),
  seed: element("seed", HTMLInputElement),
  train: element("train", HTMLButtonElement),
  pause: element("pause", HTMLButtonElement),
  weights: element("weights", HTMLButtonElement),
  save: element("save", HTMLButtonElement),
  load: element("load", HTMLButtonElement),
  runFile: element("run-file", HTMLInputElement),
  step: element("step"),
  loss: element("loss"),
  validation: element("validation"),
  speed: element("speed"),
  samples: element("samples"),
  noSample: element("no-sample"),
  numbers: element("numbers"),
  model: element("model"),
  adapter: element("adapter"),
};
const progress = new ProgressLine(element("status"));
const chart = new Chart(element("loss-chart"), {
  series: [
    { label: "training", line: "a" },
    { label: "validation", line: "b", points: true },
  ],
  x: { label: "step", format: grouped, linear: true },
  y: { label: "loss", format: (value) => value.toFixed(2), linear: true },
});

/** A longer text is shown by its beginning only: laying all of it out would take the page's time. */
const SHOWN = 4000;
const LARGEST_FILE = 200 << 20;
const KEPT_SAMPLES = 4;

/** What is to be learnt, where it is not what stands in the box. */
interface Source {
  readonly name: string;
  readonly text: string | File;
}

let source: Source | undefined;
let ready = false;
let run: RunReport | undefined;
/** From the moment that training is asked for until it has ended. */
let training = false;
let paused = false;
/** Where the run is, and the last that was saved of it. */
let step = 0;
let saved: Uint8Array<ArrayBuffer> | undefined;
let curve = new LossCurve();

const engine = new Engine<TrainCalls, Events>({
  spawn: () => new Worker(new URL("./worker.ts", import.meta.url), { type: "module" }),
  on: {
    working({ step: what }) {
      progress.show(what, null);
    },
    stepped({ first, losses, tokensPerSecond }) {
      losses.forEach((loss, i) => {
        curve.add(first + i, loss);
      });
      step = first + losses.length - 1;
      page.step.textContent = grouped(step);
      page.loss.textContent = (losses.reduce((a, b) => a + b, 0) / losses.length).toFixed(3);
      if (tokensPerSecond !== undefined) page.speed.textContent = perSecond(tokensPerSecond, "tokens/s");
      progress.show("Training …", step / page.steps.valueAsNumber);
      draw();
    },
    evaluated({ step: at, loss }) {
      curve.evaluate(at, loss);
      page.validation.textContent = loss.toFixed(3);
      draw();
      tabulate();
    },
    sampled({ step: at, text }) {
      showSample(at, text);
    },
    saved(bytes) {
      saved = bytes;
    },
  },
  stopped(because) {
    ready = false;
    update();
    progress.show(because === "lost" ? "Interrupted." : "Not available.");
  },
  async prepare(adapter, again) {
    page.adapter.textContent = adapterName(adapter);
    if (!again || !run) {
      ready = true;
      progress.show("Ready.");
      update();
      return;
    }
    const restored = saved ? await engine.call("load", saved) : undefined;
    ready = true;
    if (!restored) {
      run = undefined;
      training = false;
      progress.show("Ready.");
      update();
      return "Nothing had been saved of the run yet.";
    }
    step = restored.step;
    update();
    if (training) void go();
    else progress.show("Paused.");
    return `The run goes on from step ${grouped(step)}, which was saved last.`;
  },
});

page.text.addEventListener("input", showFacts);
page.text.addEventListener("paste", (event) => {
  const pasted = event.clipboardData?.getData("text") ?? "";
  if (pasted.length <= SHOWN) return;
  event.preventDefault();
  choose({ name: "Pasted text", text: pasted });
});
page.open.addEventListener("click", () => page.file.click());
page.file.addEventListener("change", () => {
  const [file] = page.file.files ?? [];
  if (file) void chooseFile(file);
  page.file.value = "";
});
page.sums.addEventListener("click", () => choose({ name: "Sums", text: sums() }));
page.sentences.addEventListener("click", () => choose({ name: "Sentences", text: sentences() }));
page.clear.addEventListener("click", () => choose(undefined));
page.form.addEventListener("dragover", (event) => {
  event.preventDefault();
  page.form.classList.add("dropping");
});
page.form.addEventListener("dragleave", () => page.form.classList.remove("dropping"));
page.form.addEventListener("drop", (event) => {
  event.preventDefault();
  page.form.classList.remove("dropping");
  const [file] = event.dataTransfer?.files ?? [];
  const text = event.dataTransfer?.getData("text") ?? "";
  if (file) void chooseFile(file);
  else if (text !== "") choose({ name: "Dropped text", text });
});
page.form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (ready && !training) void begin();
});
page.pause.addEventListener("click", () => {
  if (training) pause();
  else if (page.form.reportValidity()) void goOn();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && training) pause();
});
page.weights.addEventListener("click", () => void hand("weights", "hlm.safetensors"));
page.save.addEventListener("click", () => void hand("save", "training.safetensors"));
page.load.addEventListener("click", () => page.runFile.click());
page.runFile.addEventListener("change", () => {
  const [file] = page.runFile.files ?? [];
  if (file) void load(file);
  page.runFile.value = "";
});

update();
draw();
void engine.start();

async function chooseFile(file: File): Promise<void> {
  if (file.size > LARGEST_FILE) {
    say(page.textProblem, `${file.name} has ${grouped(file.size / 2 ** 20)} MiB, more than the ${LARGEST_FILE >> 20} that this page takes.`);
    return;
  }
  const beginning = await file.slice(0, SHOWN).text();
  choose({ name: file.name, text: file }, beginning);
}

/** Shows the beginning of a text that was chosen and not typed, which cannot be changed here. */
function choose(chosen: Source | undefined, beginning = typeof chosen?.text === "string" ? chosen.text.slice(0, SHOWN) : ""): void {
  source = chosen;
  page.text.value = beginning;
  page.text.readOnly = chosen !== undefined;
  page.clear.hidden = chosen === undefined;
  if (!chosen) page.text.focus();
  showFacts();
}

function showFacts(): void {
  say(page.textProblem, "");
  const { text } = page.text.readOnly && source ? source : { text: page.text.value };
  const length = typeof text === "string" ? text.length : text.size;
  const unit = typeof text === "string" ? "characters" : "bytes";
  const name = source ? `${source.name}: ` : "";
  page.textFacts.textContent = length === 0 ? "Nothing yet." : `${name}${grouped(length)} ${unit}${length > SHOWN ? ", shown in part" : ""}.`;
}

/** A new model, from the beginning. */
async function begin(): Promise<void> {
  await shield(async () => {
    hideBanner();
    training = true;
    paused = false;
    run = undefined;
    saved = undefined;
    update();
    progress.show("Reading the text …", null);
    const kind = page.vocabulary.value as VocabularyKind;
    const least = Math.ceil((page.context.valueAsNumber + 1) / 0.9) + 1;
    const report = await engine.call("read", source?.text ?? page.text.value, kind).catch((error: Error) => {
      if (error instanceof EngineLost) throw error;
      return error;
    });
    if (report instanceof Error || report.tokens < least || report.vocabulary < 2) {
      training = false;
      const why =
        report instanceof Error
          ? `The text could not be read: ${report.message}.`
          : report.tokens < least
            ? `The text has ${grouped(report.tokens)} tokens. With a context of ${page.context.value} it needs ${grouped(least)} or more.`
            : "The text has one character only, over and over: there is nothing to learn.";
      say(page.textProblem, why);
      progress.show("Ready.");
      update();
      page.text.focus();
      return;
    }
    const number = (input: HTMLInputElement | HTMLSelectElement) => Number(input.value);
    run = await engine.call(
      "begin",
      { dim: number(page.dim), layers: number(page.layers), contextLength: number(page.context), batch: number(page.batch), seed: number(page.seed) },
      kind,
    );
    step = 0;
    curve = new LossCurve();
    for (const meter of [page.loss, page.validation, page.speed]) meter.textContent = "–";
    page.step.textContent = "0";
    page.samples.replaceChildren();
    page.noSample.hidden = false;
    tabulate();
    draw();
    showModel(run);
    await go();
  });
}

/** Trains until all steps are done, the visitor pauses, or the loss explodes. */
async function go(): Promise<void> {
  await shield(async () => {
    training = true;
    paused = false;
    update();
    progress.show("Training …", step / page.steps.valueAsNumber);
    const outcome = await engine.call("train", { steps: page.steps.valueAsNumber, rate: page.rate.valueAsNumber });
    training = false;
    step = outcome.step;
    page.step.textContent = grouped(step);
    const words = { done: "Done", paused: "Paused", diverged: "Stopped" } as const;
    progress.show(`${words[outcome.because]} after ${grouped(step)} step${step === 1 ? "" : "s"}.`);
    if (outcome.because === "diverged") {
      const message = `The loss exploded in step ${grouped(step + 1)}. The weights are those before it: lower the learning rate and go on, or train anew.`;
      showBanner("wrong", message, { label: "Close", press: () => {} });
    }
    update();
    saved = await engine.call("save");
  });
}

/** After a pause; what the form says now holds from here on. */
async function goOn(): Promise<void> {
  if (!run || !ready) return;
  hideBanner();
  if (page.steps.valueAsNumber <= step) {
    progress.show(`All ${grouped(step)} steps are done: raise the number of steps to go on.`);
    page.steps.focus();
    return;
  }
  await go();
}

function pause(): void {
  if (!ready || paused) return;
  paused = true;
  progress.show("Pausing …", null);
  void engine.call("pause");
}

/** Hands out a file that the worker writes; training goes on meanwhile. */
async function hand(what: "weights" | "save", name: string): Promise<void> {
  await shield(async () => {
    download(name, await engine.call(what), "application/octet-stream");
  });
}

async function load(file: File): Promise<void> {
  await shield(async () => {
    hideBanner();
    const loaded = await engine.call("load", await file.arrayBuffer()).catch((error: Error) => {
      if (error instanceof EngineLost) throw error;
      return error;
    });
    if (loaded instanceof Error) {
      progress.show(run ? "Paused." : "Ready.");
      showBanner("wrong", `${file.name} could not be loaded: ${loaded.message}.`, { label: "Close", press: () => {} });
      return;
    }
    run = loaded;
    step = loaded.step;
    curve = new LossCurve();
    for (const { step: at, train, validation } of loaded.curve) {
      if (train !== null) curve.add(at, train);
      if (validation !== null) curve.evaluate(at, validation);
    }
    const last = loaded.curve.at(-1);
    page.step.textContent = grouped(step);
    page.loss.textContent = last?.train?.toFixed(3) ?? "–";
    page.validation.textContent = last?.validation?.toFixed(3) ?? "–";
    page.speed.textContent = "–";
    page.dim.value = String(loaded.dim);
    page.layers.value = String(loaded.layers);
    page.context.value = String(loaded.contextLength);
    page.batch.value = String(loaded.batch);
    page.steps.value = String(loaded.steps);
    page.rate.value = String(loaded.rate);
    page.seed.value = String(loaded.seed);
    page.vocabulary.value = loaded.kind;
    choose({ name: `Text of ${file.name}`, text: loaded.text });
    page.samples.replaceChildren();
    page.noSample.hidden = false;
    tabulate();
    draw();
    showModel(loaded);
    progress.show(`Paused after ${grouped(step)} steps.`);
    saved = new Uint8Array(await file.arrayBuffer());
    update();
  });
}

/** What goes wrong is said; a lost GPU is the engine's care. */
async function shield(act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    if (error instanceof EngineLost) return;
    training = false;
    update();
    progress.show("Stopped.");
    showBanner("wrong", `This did not work: ${(error as Error).message}`, { label: "Close", press: () => {} });
  }
}

function showModel({ parameters, layers, dim, vocabulary, contextLength, batch }: RunReport): void {
  page.model.textContent =
    `${grouped(parameters)} parameters: ${layers} ${layers === 1 ? "layer" : "layers"} of width ${dim}, ${grouped(vocabulary)} different tokens; ` +
    `${batch} rows of ${contextLength} tokens a step`;
}

/** The latest sample first; one that is still being written grows. */
function showSample(at: number, text: string): void {
  page.noSample.hidden = true;
  const first = page.samples.firstElementChild;
  const title = `after step ${grouped(at)}`;
  if (first?.querySelector("p")?.textContent === title) {
    const pre = first.querySelector("pre");
    if (pre) pre.textContent = text;
    return;
  }
  page.samples.prepend(make("li", {}, make("p", { textContent: title }), make("pre", { textContent: text })));
  while (page.samples.childElementCount > KEPT_SAMPLES) page.samples.lastElementChild?.remove();
}

function draw(): void {
  const { points } = curve;
  const last = points.at(-1);
  const said = last
    ? `Loss after step ${grouped(last.step)}: ${page.loss.textContent} in training, ${page.validation.textContent} in validation.`
    : "No step has been taken yet.";
  const x = points.map((point) => point.step);
  chart.show(x, [points.map(({ train }) => train), points.map(({ validation }) => validation)], said, [0, Math.max(10, last?.step ?? 0)]);
}

function tabulate(): void {
  const { rows } = curve;
  const cell = (value: number | null) => make("td", { textContent: value === null ? "–" : value.toFixed(3) });
  page.numbers.replaceChildren(
    ...rows.map((row) => make("tr", {}, make("th", { scope: "row", textContent: grouped(row.step) }), cell(row.train), cell(row.validation))),
  );
}

function update(): void {
  page.pause.textContent = training || !run ? "Pause" : "Go on";
  const idle = ready && !training;
  allow(
    new Map([
      [page.pause, ready && run !== undefined],
      [page.train, idle],
      [page.weights, ready && run !== undefined],
      [page.save, ready && run !== undefined],
      [page.load, idle],
    ]),
  );
  for (const control of [page.open, page.sums, page.sentences, page.clear]) control.disabled = training;
  for (const input of [page.dim, page.layers, page.context, page.batch, page.vocabulary, page.seed, page.steps, page.rate]) {
    input.disabled = training;
  }
  page.text.disabled = training;
}
