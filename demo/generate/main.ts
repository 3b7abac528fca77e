import { allow, download, element } from "../shared/dom.ts";
import { adapterName, Engine, EngineLost } from "../shared/engine.ts";
import { bytes, grouped } from "../shared/format.ts";
import { showBanner } from "../shared/notices.ts";
import { ProgressLine } from "../shared/progress.ts";
import { StrandView } from "./strand_view.ts";
import type { Events, GenerateCalls, ModelReport, Settings } from "./worker.ts";

const page = {
  form: element("form", HTMLFormElement),
  which: element("which", HTMLSelectElement),
  whichHint: element("which-hint"),
  prompt: element("prompt", HTMLTextAreaElement),
  promptProblem: element("prompt-problem"),
  temperature: element("temperature", HTMLInputElement),
  topK: element("top-k", HTMLInputElement),
  seed: element("seed", HTMLInputElement),
  window: element("window", HTMLInputElement),
  tokens: element("tokens", HTMLInputElement),
  refresh: element("refresh", HTMLInputElement),
  generate: element("generate", HTMLButtonElement),
  pause: element("pause", HTMLButtonElement),
  branch: element("branch", HTMLButtonElement),
  load: element("load", HTMLButtonElement),
  file: element("file", HTMLInputElement),
  strands: element("strands"),
  adapter: element("adapter"),
  model: element("model"),
};
/** Checkpoints, and what one should know of them. */
const MODELS = {
  fading: {
    file: "checkpoints/hlm_fading_shakespeare.safetensors",
    hint: "Trained by this package. What was read long ago counts less, and it writes on for as long as you like.",
  },
  original: {
    file: "checkpoints/hlm_shakespeare.safetensors",
    hint: "Every character counts the same, for ever. It loses the thread on longer texts.",
  },
} as const;
const which = new URLSearchParams(location.search).get("model") === "original" ? "original" : "fading";
const progress = new ProgressLine(element("status"));

interface Strand {
  readonly view: StrandView;
  settings: Settings;
  /** The memory's own, which the form no longer changes. */
  readonly window: number | undefined;
}

let model: ModelReport | undefined;
/** By their numbers in the worker: one, or two after a branch. */
const strands = new Map<number, Strand>();
let writing = false;
/** To go on from where a loss has interrupted: characters still to be written. */
let owed = 0;

const engine = new Engine<GenerateCalls, Events>({
  spawn: () => new Worker(new URL("./worker.ts", import.meta.url), { type: "module" }),
  on: {
    loading({ step, loaded, total }) {
      progress.show(step, loaded === undefined || !total ? null : loaded / total);
    },
    written({ strand: id, text, perSecond, ...report }) {
      const strand = strands.get(id);
      if (!strand) return;
      strand.view.append(text);
      strand.view.showMemory(report, strand.window);
      strand.view.showSpeed(perSecond);
    },
  },
  stopped(because) {
    model = undefined;
    writing = false;
    update();
    progress.show(because === "lost" ? "Interrupted." : "Not available.");
  },
  async prepare(adapter, again) {
    page.adapter.textContent = adapterName(adapter);
    const loaded = await engine.call("load", new URL(MODELS[which].file, document.baseURI).href);
    const { parameters, layers, dim, order, weightBytes } = loaded;
    page.model.textContent = `${grouped(parameters)} parameters, ${layers} layers of width ${dim} and order ${order}, ${bytes(weightBytes)} on the GPU`;
    for (const [id, { view, settings }] of strands) view.showMemory(await engine.call("begin", id, view.text, settings), settings.window);
    model = loaded;
    progress.show("Ready.");
    update();
    checkPrompt();
    if (!again || strands.size === 0) return;
    if (owed > 0) void write(owed);
    return "The memory was computed anew from the text, which goes on where it was.";
  },
});

page.which.value = which;
page.whichHint.textContent = MODELS[which].hint;
// A fading memory has nothing to cut off and nothing to start anew.
page.window.disabled = which === "fading";
page.refresh.checked = which === "original";
for (const label of page.refresh.labels ?? []) label.hidden = which === "fading";
page.which.addEventListener("change", () => {
  const query = new URLSearchParams(location.search);
  query.set("model", page.which.value);
  location.search = query.toString();
});
page.prompt.addEventListener("input", checkPrompt);
page.form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!model || writing) return;
  if (checkPrompt()) void begin();
  else page.prompt.focus();
});
page.prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) page.form.requestSubmit();
});
page.pause.addEventListener("click", () => {
  if (writing) void engine.call("pause");
  else if (page.form.reportValidity()) void write(page.tokens.valueAsNumber);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && writing) void engine.call("pause");
});
page.branch.addEventListener("click", () => void branch());
page.load.addEventListener("click", () => page.file.click());
page.file.addEventListener("change", () => void load());

update();
void engine.start();

async function begin(): Promise<void> {
  const settings = readSettings();
  await shield(async () => {
    show(new Map([[0, { text: page.prompt.value, given: page.prompt.value.length, settings, window: settings.window }]]));
    await engine.call("begin", 0, page.prompt.value, settings);
    await write(page.tokens.valueAsNumber);
  });
}

/** Every strand writes `count` characters more. */
async function write(count: number): Promise<void> {
  // What the form says now holds from here on; a random seed stays what it was.
  const form = readSettings();
  const before = [...strands.values()].map(({ view }) => view.written);
  for (const [id, strand] of strands) {
    const { seed: own, window } = strand.settings;
    const seed = page.seed.value === "" || strands.size > 1 ? own : form.seed;
    const { window: _, ...rest } = form;
    strand.settings = { ...rest, seed, ...(window !== undefined && { window }) };
    strand.view.showSeed(seed);
    strand.view.setWriting(true);
    if (id === 0) strand.view.section.scrollIntoView({ block: "nearest" });
  }
  writing = true;
  owed = count;
  update();
  progress.show("Writing …");
  try {
    const paused = await Promise.all([...strands].map(([id, { settings }]) => engine.call("write", id, count, settings)));
    owed = 0;
    writing = false;
    const written = [...strands.values()].map(({ view }, i) => view.written - (before[i] ?? 0));
    const each = strands.size > 1 ? " each" : "";
    const most = Math.max(...written);
    progress.show(`${paused.includes(true) ? "Paused" : "Done"} after ${grouped(most)} character${most === 1 ? "" : "s"}${each}.`);
  } catch (error) {
    // After a loss, what is still owed is written when the memory is there again.
    if (error instanceof EngineLost) owed = Math.max(0, ...[...strands.values()].map(({ view }, i) => count - (view.written - (before[i] ?? 0))));
    else {
      owed = 0;
      writing = false;
      throw error;
    }
  } finally {
    for (const { view } of strands.values()) view.setWriting(writing);
    update();
  }
}

/** Two memories from one: the same text goes on in two ways. */
async function branch(): Promise<void> {
  await shield(async () => {
    const [only] = strands.values();
    if (!only) return;
    const { view, settings, window } = only;
    const other = { ...settings, seed: drawSeed() };
    const report = await engine.call("branch", 0, 1);
    const both = { text: view.text, given: view.given, window };
    show(
      new Map([
        [0, { ...both, settings }],
        [1, { ...both, settings: other }],
      ]),
    );
    for (const strand of strands.values()) strand.view.showMemory(report, window);
    await write(page.tokens.valueAsNumber);
  });
}

async function keepOnly(id: number): Promise<void> {
  await shield(async () => {
    const kept = strands.get(id);
    if (!kept || writing) return;
    await engine.call("keepOnly", id, 0);
    const report = await engine.call("report", 0);
    const { view, settings, window } = kept;
    show(new Map([[0, { text: view.text, given: view.given, settings, window }]]));
    strands.get(0)?.view.showMemory(report, window);
    progress.show("One text goes on.");
  });
}

async function save(id: number): Promise<void> {
  await shield(async () => {
    const strand = strands.get(id);
    if (!strand || writing) return;
    const { text, given } = strand.view;
    const file = await engine.call("save", id, text, given);
    download("moments.safetensors", file, "application/octet-stream");
    progress.show(`Saved ${bytes(file.byteLength)}: the memory and the text.`);
  });
}

async function load(): Promise<void> {
  const [file] = page.file.files ?? [];
  page.file.value = "";
  if (!file) return;
  try {
    const settings = readSettings();
    const { text, given, window, ...report } = await engine.call("loadState", 0, await file.arrayBuffer(), settings);
    show(new Map([[0, { text, given, window, settings: { ...settings, ...(window !== undefined && { window }) } }]]));
    strands.get(0)?.view.showMemory(report, window);
    progress.show("Loaded. Continue goes on from there.");
    update();
    page.pause.focus();
  } catch (error) {
    if (error instanceof EngineLost) return;
    const message = `${file.name} could not be loaded: ${(error as Error).message}`;
    showBanner("wrong", message, { label: "Close", press: () => page.load.focus() });
  }
}

/** Replaces the texts on the page. */
function show(next: ReadonlyMap<number, { text: string; given: number; settings: Settings; window: number | undefined }>): void {
  strands.clear();
  for (const [id, { text, given, settings, window }] of next) {
    const title = next.size === 1 ? "Text" : `Continuation ${id === 0 ? "A" : "B"}`;
    const buttons = { save: () => void save(id), keep: () => void keepOnly(id) };
    strands.set(id, { settings, window, view: new StrandView(id, title, text, given, settings.seed, buttons, next.size > 1) });
  }
  page.strands.dataset["count"] = String(strands.size);
  page.strands.replaceChildren(...[...strands.values()].map(({ view }) => view.section));
  for (const { view } of strands.values()) view.scrollToEnd();
  update();
}

/** Losses are the engine's to repair; other errors are shown. */
async function shield(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof EngineLost)) showBanner("wrong", `The text broke off. ${(error as Error).message}`, { label: "Close", press: () => {} });
  }
}

function update(): void {
  const ready = model !== undefined && !writing;
  page.pause.textContent = writing || strands.size === 0 ? "Pause" : "Continue";
  allow(
    new Map([
      [page.pause, writing || (ready && strands.size > 0)],
      [page.generate, ready],
      [page.branch, ready && strands.size === 1],
      [page.load, ready],
    ]),
  );
}

function readSettings(): Settings {
  const optional = (input: HTMLInputElement) => (input.value === "" ? undefined : input.valueAsNumber);
  const topK = optional(page.topK);
  const window = optional(page.window);
  return {
    temperature: page.temperature.valueAsNumber,
    ...(topK !== undefined && { topK }),
    ...(window !== undefined && { window }),
    seed: optional(page.seed) ?? drawSeed(),
    refresh: page.refresh.checked,
  };
}

function drawSeed(): number {
  return Math.floor(Math.random() * 2 ** 32);
}

/** Says which characters of the prompt the model has never seen. */
function checkPrompt(): boolean {
  if (!model) return true;
  const known = new Set(model.characters);
  const unknown = [...new Set(page.prompt.value)].filter((character) => !known.has(character));
  page.prompt.setAttribute("aria-invalid", String(unknown.length > 0));
  const signs = [...known].filter((character) => !/[\sA-Za-z]/.test(character)).join(" ");
  const message = unknown.length
    ? `The model does not know ${unknown.map(named).join(", ")}. It knows letters without accents, spaces, line breaks and ${signs}`
    : "";
  if (page.promptProblem.textContent !== message) page.promptProblem.textContent = message;
  return unknown.length === 0;
}

function named(character: string): string {
  const code = (character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
  return character.trim() === "" ? `U+${code}` : `“${character}” (U+${code})`;
}
