import { fetchSafetensors, type Gpu, GpuUnavailableError, requestGpu } from "homm-webgpu";
import { type CharVocabulary, charVocabulary, Hlm, hlmConfigOf } from "homm-webgpu/models";

const checkpoint = "checkpoints/hlm_shakespeare.safetensors";

interface Loaded {
  readonly model: Hlm;
  readonly vocabulary: CharVocabulary;
}

interface Sampling {
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topK?: number;
  readonly seed: number;
}

const page = {
  form: element("form", HTMLFormElement),
  prompt: element("prompt", HTMLTextAreaElement),
  promptProblem: element("prompt-problem"),
  temperature: element("temperature", HTMLInputElement),
  topK: element("top-k", HTMLInputElement),
  seed: element("seed", HTMLInputElement),
  tokens: element("tokens", HTMLInputElement),
  generate: element("generate", HTMLButtonElement),
  stop: element("stop", HTMLButtonElement),
  status: element("status"),
  download: element("download", HTMLProgressElement),
  text: element("text"),
  given: element("given"),
  written: element("written"),
  speed: element("speed"),
  usedSeed: element("used-seed"),
  adapter: element("adapter"),
  model: element("model"),
  problem: element("problem"),
  noWebGpu: element("no-webgpu"),
  noWebGpuReason: element("no-webgpu-reason"),
};

let loaded: Loaded | undefined;
let running: AbortController | undefined;

page.prompt.addEventListener("input", checkPrompt);
page.form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!loaded || running) return;
  if (checkPrompt()) void write(loaded);
  else page.prompt.focus();
});
page.prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) page.form.requestSubmit();
});
page.stop.addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});

try {
  loaded = await load();
  say("Ready.");
  page.generate.disabled = false;
  checkPrompt();
} catch (error) {
  if (error instanceof GpuUnavailableError) showNoWebGpu();
  else showProblem(`The model could not be loaded. ${(error as Error).message}`);
}

async function load(): Promise<Loaded> {
  const gpu = await requestGpu();
  page.adapter.textContent = adapterName(gpu);
  void gpu.lost.then(({ message }) => {
    loaded = undefined;
    page.generate.disabled = true;
    running?.abort();
    showProblem(`The browser took the GPU away (${message || "it gave no reason"}). Reload the page to go on.`);
  });

  say("Downloading the model …");
  page.download.hidden = false;
  const weights = await fetchSafetensors(new URL(checkpoint, document.baseURI), {
    onProgress: ({ loaded, total }) => {
      if (total) page.download.value = loaded / total;
      const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
      page.download.title = `${megabytes(loaded)}${total ? ` of ${megabytes(total)}` : ""} MB`;
    },
  });
  page.download.hidden = true;

  say("Compiling the kernels …");
  const model = await Hlm.create(gpu, hlmConfigOf(weights), weights);
  const parameters = Array.from(weights, (tensor) => tensor.size).reduce((a, b) => a + b, 0);
  const { layers, dim, order } = model.config;
  const memory = `${(model.weightBytes / 2 ** 20).toFixed(1)} MiB on the GPU`;
  page.model.textContent = `${parameters.toLocaleString("en-US")} parameters, ${layers} layers of width ${dim} and order ${order}, ${memory}`;
  return { model, vocabulary: charVocabulary(weights) };
}

async function write({ model, vocabulary }: Loaded): Promise<void> {
  const controller = new AbortController();
  running = controller;
  const sampling = readSampling();
  const prompt = page.prompt.value;
  const text = new Text();
  page.given.textContent = prompt;
  page.written.replaceChildren(text);
  page.usedSeed.textContent = String(sampling.seed);
  page.speed.textContent = "–";
  page.problem.hidden = true;
  setWriting(true);
  page.text.scrollIntoView({ block: "nearest" });
  say("Writing …");

  const pace = new Pace();
  let outcome = "Done";
  try {
    // The model was trained on short texts: past their length it goes on from the second half of what it sees.
    const refresh = Math.ceil(model.config.contextLength / 2);
    for await (const token of model.generate(vocabulary.encode(prompt), { ...sampling, refresh, signal: controller.signal })) {
      const atEnd = page.text.scrollTop + page.text.clientHeight > page.text.scrollHeight - 40;
      text.appendData(vocabulary.decode([token]));
      if (atEnd) page.text.scrollTop = page.text.scrollHeight;
      pace.count();
      await pace.breathe();
    }
  } catch (error) {
    outcome = "Stopped";
    if (!controller.signal.aborted) showProblem(`The text broke off. ${(error as Error).message}`);
  }
  running = undefined;
  pace.show();
  setWriting(false);
  say(`${outcome} after ${pace.tokens} character${pace.tokens === 1 ? "" : "s"}.`);
}

/** Counts tokens, shows their rate now and then, and lets the page paint and hear the user in between. */
class Pace {
  tokens = 0;
  #first = 0;
  #last = 0;
  #shown = 0;
  #breath = performance.now();

  count(): void {
    this.tokens++;
    this.#last = performance.now();
    // The first token includes reading the prompt.
    if (this.tokens === 1) this.#first = this.#last;
    if (this.#last - this.#shown > 250) this.show();
  }

  show(): void {
    this.#shown = this.#last;
    if (this.tokens < 2) return;
    const rate = (1000 * (this.tokens - 1)) / (this.#last - this.#first);
    page.speed.textContent = `${rate.toFixed(rate < 10 ? 1 : 0)} tokens/s`;
  }

  /** A turn of the event loop every 30 ms; timers would be slowed down in a background tab, messages are not. */
  async breathe(): Promise<void> {
    if (performance.now() - this.#breath < 30) return;
    await new Promise<void>((resolve) => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        resolve();
      };
      port2.postMessage(undefined);
    });
    this.#breath = performance.now();
  }
}

function readSampling(): Sampling {
  const topK = page.topK.value;
  return {
    maxTokens: page.tokens.valueAsNumber,
    temperature: page.temperature.valueAsNumber,
    ...(topK !== "" && { topK: page.topK.valueAsNumber }),
    seed: page.seed.value === "" ? Math.floor(Math.random() * 2 ** 32) : page.seed.valueAsNumber,
  };
}

/** Says which characters of the prompt the model has never seen. */
function checkPrompt(): boolean {
  if (!loaded) return true;
  const { vocabulary } = loaded;
  const unknown = [...new Set(page.prompt.value)].filter((character) => !vocabulary.knows(character));
  page.prompt.setAttribute("aria-invalid", String(unknown.length > 0));
  const message = unknown.length
    ? `The model does not know ${unknown.map(named).join(", ")}. It knows letters without accents, spaces, line breaks and ${signsOf(vocabulary)}`
    : "";
  if (page.promptProblem.textContent !== message) page.promptProblem.textContent = message;
  return unknown.length === 0;
}

function named(character: string): string {
  const code = (character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
  return `${character.trim() === "" ? "" : `“${character}” `}(U+${code})`.replace(/^\((.*)\)$/, "$1");
}

function signsOf(vocabulary: CharVocabulary): string {
  const known = vocabulary.decode(Array.from({ length: vocabulary.size }, (_, id) => id));
  return [...known].filter((character) => !/[\sA-Za-z]/.test(character)).join(" ");
}

/** Moves the focus along, so that it is never on a disabled button. */
function setWriting(writing: boolean): void {
  const [enabled, disabled] = writing ? [page.stop, page.generate] : [page.generate, page.stop];
  enabled.disabled = !writing && !loaded;
  if (document.activeElement === disabled) enabled.focus();
  disabled.disabled = true;
  page.text.setAttribute("aria-busy", String(writing));
}

function showNoWebGpu(): void {
  say("Not available.");
  page.noWebGpuReason.textContent =
    "gpu" in navigator && navigator.gpu
      ? "This browser has WebGPU but found no graphics adapter for it."
      : "This browser offers no WebGPU, through which the model would be computed.";
  page.noWebGpu.hidden = false;
}

function showProblem(message: string): void {
  say("Not available.");
  page.download.hidden = true;
  page.problem.textContent = message;
  page.problem.hidden = false;
}

function say(message: string): void {
  page.status.textContent = message;
}

function adapterName({ info }: Gpu): string {
  const name = info.description || [info.vendor, info.architecture].filter(Boolean).join(" ") || "unnamed GPU";
  return info.software ? `${name} (software, computed on the CPU)` : name;
}

function element<T extends HTMLElement = HTMLElement>(id: string, kind?: new () => T): T {
  const found = document.getElementById(id);
  if (!found || (kind && !(found instanceof kind))) throw new Error(`index.html has no ${id} of the expected kind`);
  return found as T;
}
