/** The language model, in a worker: strands of text that can be paused, branched, saved and loaded. */
import { fetchSafetensors, type Gpu, parseSafetensors } from "homm-webgpu";
import { type CharVocabulary, charVocabulary, Hlm, HlmState, hlmConfigOf } from "homm-webgpu/models";
import { type Send, serve, turn } from "../shared/serve.ts";

export interface Settings {
  readonly temperature: number;
  readonly topK?: number;
  readonly seed: number;
  /** Each layer remembers the last tokens only. */
  readonly window?: number;
  /** Start anew from half of what the model was trained on whenever that much has been taken in. */
  readonly refresh: boolean;
}

export interface ModelReport {
  readonly parameters: number;
  readonly layers: number;
  readonly dim: number;
  readonly order: number;
  readonly weightBytes: number;
  readonly contextLength: number;
  readonly characters: string;
}

export interface Events {
  readonly loading: { readonly step: string; readonly loaded?: number; readonly total?: number | undefined };
  readonly written: Written;
}

export interface Written extends StateReport {
  readonly strand: number;
  readonly text: string;
  /** Tokens a second since the strand went on; the first, which takes in the prompt, is left out. */
  readonly perSecond: number | undefined;
}

export interface StateReport {
  readonly bytes: number;
  /** Tokens taken in, ever and since the memory last started anew. */
  readonly seen: number;
  readonly remembered: number;
}

export interface Loaded extends StateReport {
  readonly text: string;
  /** Characters of the text that the model did not write. */
  readonly given: number;
  readonly window: number | undefined;
}

/** How often the page hears of new text: a person sees no difference to every token. */
const REPORT_MS = 33;
const FORMAT = "homm-webgpu demo text 1";

export type GenerateCalls = ReturnType<typeof work>;

serve<Events>(work);

function work(gpu: Gpu, send: Send<Events>) {
  let model: Hlm;
  let vocabulary: CharVocabulary;
  const strands = new Map<number, Strand>();

  const strandOf = (id: number): Strand => {
    const strand = strands.get(id);
    if (!strand) throw new Error(`there is no strand ${id}`);
    return strand;
  };
  const keep = (id: number, strand: Strand): StateReport => {
    strands.get(id)?.destroy();
    strands.set(id, strand);
    return strand.report();
  };

  return {
    async load(url: string): Promise<ModelReport> {
      send("loading", { step: "Downloading the model …", loaded: 0 });
      const onProgress = (progress: { loaded: number; total: number | undefined }) =>
        send("loading", { step: "Downloading the model …", ...progress });
      const weights = await fetchSafetensors(url, { onProgress });
      send("loading", { step: "Compiling the kernels …" });
      model = await Hlm.create(gpu, hlmConfigOf(weights), weights);
      vocabulary = charVocabulary(weights);
      const { layers, dim, order, contextLength } = model.config;
      const parameters = Array.from(weights, (tensor) => tensor.size).reduce((a, b) => a + b, 0);
      const characters = vocabulary.decode(Array(vocabulary.size).keys());
      return { parameters, layers, dim, order, weightBytes: model.weightBytes, contextLength, characters };
    },

    /** A strand that goes on from this text. */
    begin(id: number, text: string, settings: Settings): StateReport {
      return keep(id, Strand.ofText(model, vocabulary.encode(text), settings));
    },

    /** Writes until there are `count` tokens more, or until `pause`. @returns whether it was paused */
    async write(id: number, count: number, settings: Settings): Promise<boolean> {
      const strand = strandOf(id);
      strand.settings = settings;
      strand.paused = false;
      let text = "";
      let written = 0;
      let first = 0;
      let reported = performance.now();
      const report = () => {
        const now = performance.now();
        const perSecond = written > 1 ? (1000 * (written - 1)) / (now - first) : undefined;
        send("written", { strand: id, text, perSecond, ...strand.report() });
        text = "";
        reported = now;
      };
      try {
        while (written < count && !strand.paused) {
          text += vocabulary.decode([await strand.next()]);
          if (++written === 1) first = performance.now();
          if (performance.now() - reported > REPORT_MS) {
            report();
            await turn();
          }
        }
      } finally {
        if (text !== "") report();
      }
      return written < count;
    },

    pause(): void {
      for (const strand of strands.values()) strand.paused = true;
    },

    /** A copy of one strand's memory becomes another strand. */
    branch(from: number, to: number): StateReport {
      return keep(to, strandOf(from).branch());
    },

    /** Only this strand is kept, under another number. */
    keepOnly(from: number, to: number): void {
      const kept = strandOf(from);
      for (const strand of strands.values()) if (strand !== kept) strand.destroy();
      strands.clear();
      strands.set(to, kept);
    },

    report(id: number): StateReport {
      return strandOf(id).report();
    },

    save(id: number, text: string, given: number): Promise<Uint8Array<ArrayBuffer>> {
      return strandOf(id).save({ format: FORMAT, text, given: String(given) });
    },

    /** @throws WeightsError for a file that is not one that `save` made with this model */
    loadState(id: number, file: ArrayBuffer, settings: Settings): Loaded {
      const { metadata } = parseSafetensors(file);
      const { format, text = "", given } = metadata;
      if (format !== FORMAT) throw new Error("it holds no text that was saved here");
      if (!vocabulary.knows(text)) throw new Error("its text has characters that this model does not know");
      const state = HlmState.load(gpu, file, { model });
      const report = keep(id, Strand.ofState(model, state, vocabulary.encode(text), settings));
      return { text, given: Number(given), window: state.window, ...report };
    },
  };
}

/** A text that goes on: the model's memory of it, and the tokens that the memory has not taken in yet. */
class Strand {
  paused = false;
  readonly #model: Hlm;
  readonly #state: HlmState;
  /** The end of the text, enough to start anew from. */
  readonly #recent: number[];
  /** Tokens of the whole text. */
  #length: number;
  /** What the next generator takes in. */
  #feed: Int32Array;
  #settings: Settings;
  #generator: AsyncGenerator<number, void, undefined> | undefined;
  #generators = 0;

  private constructor(model: Hlm, state: HlmState, text: { recent: readonly number[]; length: number; feed: Int32Array }, settings: Settings) {
    this.#model = model;
    this.#state = state;
    this.#recent = [...text.recent];
    this.#length = text.length;
    this.#feed = text.feed;
    this.#settings = settings;
  }

  /** A memory that has yet to take in the text, or what of it matters. */
  static ofText(model: Hlm, ids: Int32Array, settings: Settings): Strand {
    const { window, refresh } = settings;
    const { contextLength, layers } = model.config;
    const anew = refresh && ids.length > contextLength;
    // Through depth a token reaches as far back as all windows together.
    const reach = anew ? half(contextLength) : window === undefined ? ids.length : layers * window + 1;
    const feed = ids.slice(-reach);
    const state = model.createState({ window, position: anew ? 0 : ids.length - feed.length });
    return new Strand(model, state, { recent: [...ids.slice(-contextLength)], length: ids.length, feed }, settings);
  }

  /** A memory that has taken in all of the text but its last token. */
  static ofState(model: Hlm, state: HlmState, ids: Int32Array, settings: Settings): Strand {
    return new Strand(model, state, { recent: [...ids.slice(-model.config.contextLength)], length: ids.length, feed: ids.slice(-1) }, settings);
  }

  /** What is drawn from here on. The window stays that of the memory. */
  set settings(settings: Settings) {
    const drawing = ({ temperature, topK, seed, refresh }: Settings) => [temperature, topK, seed, refresh].join();
    if (drawing(settings) === drawing(this.#settings)) return;
    this.#settings = settings;
    this.#endGenerator();
    this.#generators = 0;
  }

  async next(): Promise<number> {
    const { contextLength } = this.#model.config;
    if (this.#settings.refresh && this.#state.position >= contextLength) {
      this.#endGenerator();
      this.#state.reset();
      this.#feed = Int32Array.from(this.#recent.slice(-half(contextLength)));
    }
    this.#generator ??= this.#generate();
    const { value } = await this.#generator.next();
    if (value === undefined) throw new Error("the model wrote nothing");
    this.#recent.push(value);
    if (this.#recent.length > 2 * contextLength) this.#recent.splice(0, this.#recent.length - contextLength);
    this.#length++;
    this.#feed = Int32Array.of(value);
    return value;
  }

  branch(): Strand {
    return new Strand(this.#model, this.#state.clone(), { recent: this.#recent, length: this.#length, feed: this.#feed }, this.#settings);
  }

  report(): StateReport {
    const { position, bytes } = this.#state;
    return { bytes, seen: this.#length - this.#feed.length, remembered: position };
  }

  save(metadata: Record<string, string>): Promise<Uint8Array<ArrayBuffer>> {
    return this.#state.save({ metadata });
  }

  destroy(): void {
    this.paused = true;
    this.#endGenerator();
    this.#state.destroy();
  }

  #generate(): AsyncGenerator<number, void, undefined> {
    const { temperature, topK, seed } = this.#settings;
    // A generator counts its draws from 0: the same seed again would repeat the same chances.
    const own = (seed + 0x9e3779b9 * this.#generators++) % 2 ** 32;
    const maxTokens = Number.MAX_SAFE_INTEGER;
    return this.#model.generate(this.#feed, { temperature, ...(topK !== undefined && { topK }), seed: own, maxTokens, state: this.#state });
  }

  #endGenerator(): void {
    void this.#generator?.return();
    this.#generator = undefined;
  }
}

/** Of what the model was trained on, this much is taken into a memory that starts anew. */
function half(contextLength: number): number {
  return Math.ceil(contextLength / 2);
}
