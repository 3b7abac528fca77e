/** Trains a language model on a text, in a worker. */
import { type Gpu, parseSafetensors, writeSafetensors } from "homm-webgpu";
import { byteVocabulary, charVocabularyOf, hlmMetadata, type Vocabulary, vocabularyOf } from "homm-webgpu/models";
import { BatchSampler, evaluationBatches, HlmTrainer, splitTokens, type TokenBatch, train, warmupCosine } from "homm-webgpu/train";
import { type Send, serve, turn } from "../shared/serve.ts";

export type VocabularyKind = "chars" | "bytes";

export interface TextReport {
  readonly tokens: number;
  readonly vocabulary: number;
}

export interface ModelSettings {
  readonly dim: number;
  readonly layers: number;
  readonly contextLength: number;
  readonly batch: number;
  readonly seed: number;
}

export interface RunReport extends ModelSettings {
  readonly parameters: number;
  readonly vocabulary: number;
  readonly step: number;
}

export interface LoadedRun extends RunReport {
  /** Steps that the run was to take, and its rate. */
  readonly steps: number;
  readonly rate: number;
  readonly kind: VocabularyKind;
  readonly text: string;
  readonly curve: readonly Evaluation[];
}

export interface Evaluation {
  readonly step: number;
  readonly train: number | null;
  readonly validation: number | null;
}

export interface Outcome {
  readonly step: number;
  readonly because: "done" | "paused" | "diverged";
  /** What went wrong. */
  readonly message?: string;
}

export interface Events {
  readonly working: { readonly step: string };
  readonly stepped: {
    /** Losses of the steps from `first` on. */
    readonly first: number;
    readonly losses: readonly number[];
    readonly tokensPerSecond: number | undefined;
  };
  readonly evaluated: { readonly step: number; readonly loss: number };
  readonly sampled: { readonly step: number; readonly text: string; readonly done: boolean };
  /** The run now and then, for the case that the GPU is lost. */
  readonly saved: Uint8Array<ArrayBuffer>;
}

export type TrainCalls = ReturnType<typeof work>;

const REPORT_MS = 100;
const SAMPLE_MS = 4000;
const SAVE_MS = 15_000;
const PACE_MS = 4000;
const SAMPLE_TOKENS = 160;
/** Predictions that a validation loss is the mean of, at least. */
const EVALUATED_TOKENS = 4096;

/** All that belongs to one training. */
interface Run {
  readonly trainer: HlmTrainer;
  readonly vocabulary: Vocabulary;
  readonly kind: VocabularyKind;
  readonly text: string;
  readonly sampler: BatchSampler;
  readonly evaluation: readonly TokenBatch[];
  readonly seed: number;
}

serve<Events>(work);

function work(gpu: Gpu, send: Send<Events>) {
  let run: Run | undefined;
  let text = "";
  let controller = new AbortController();
  /** Steps and rate that the run was last told. */
  let goal = { steps: 0, rate: 0 };
  let curve: readonly Evaluation[] = [];

  const current = (): Run => {
    if (!run) throw new Error("there is no run");
    return run;
  };

  const start = (
    trainer: HlmTrainer,
    own: Omit<Run, "trainer" | "sampler" | "evaluation">,
    sampler: (tokens: Int32Array) => BatchSampler,
  ): RunReport => {
    const { vocabulary, seed } = own;
    const { contextLength, dim, layers } = trainer.config;
    const tokens = splitTokens(vocabulary.encode(own.text));
    const made = sampler(tokens.train);
    const { batch } = made.state;
    const limit = Math.ceil(EVALUATED_TOKENS / (batch * contextLength));
    const evaluation = tokens.validation.length > contextLength ? evaluationBatches(tokens.validation, { batch, length: contextLength, limit }) : [];
    run?.trainer.destroy();
    run = { ...own, trainer, sampler: made, evaluation };
    return { dim, layers, contextLength, batch, seed, parameters: trainer.parameters, vocabulary: vocabulary.size, step: trainer.steps };
  };

  const saveRun = (): Promise<Uint8Array<ArrayBuffer>> => {
    const { trainer, vocabulary, kind, sampler, seed, text } = current();
    const state = { ...goal, kind, seed };
    return trainer.save({
      vocabulary: vocabulary.metadata,
      sampler: JSON.stringify(sampler.state),
      curve: JSON.stringify(curve),
      demo: JSON.stringify(state),
      text,
    });
  };

  const sample = async (): Promise<void> => {
    const { trainer, vocabulary, text } = current();
    const { contextLength } = trainer.config;
    const step = trainer.steps;
    const model = await trainer.model();
    try {
      const prompt = text.slice(0, 1);
      let written = prompt;
      const decode = vocabulary.decoder();
      const refresh = Math.max(1, Math.floor(contextLength / 2));
      let reported = performance.now();
      for await (const token of model.generate(vocabulary.encode(prompt), { maxTokens: SAMPLE_TOKENS, temperature: 0.7, seed: step, refresh })) {
        written += decode([token]);
        if (performance.now() - reported < REPORT_MS) continue;
        reported = performance.now();
        send("sampled", { step, text: written, done: false });
        await turn();
        if (controller.signal.aborted) break;
      }
      send("sampled", { step, text: written, done: true });
    } finally {
      model.destroy();
    }
  };

  return {
    /** Takes a text to learn. @throws Error where there is none, or no text */
    async read(source: string | File, kind: VocabularyKind): Promise<TextReport> {
      text = typeof source === "string" ? source : await source.text();
      if (text.includes("\u0000")) throw new Error("this is no text");
      const vocabulary = vocabularyFor(text, kind);
      const tokens = kind === "chars" ? count(text) : vocabulary.encode(text).length;
      return { tokens, vocabulary: vocabulary.size };
    },

    /** A new model for the text that was read last. */
    async begin({ dim, layers, contextLength, batch, seed }: ModelSettings, kind: VocabularyKind): Promise<RunReport> {
      send("working", { step: "Compiling the kernels …" });
      const vocabulary = vocabularyFor(text, kind);
      const config = { vocabSize: vocabulary.size, dim, layers, contextLength, order: 2, orderExpand: 2, ffwExpand: 2 };
      const trainer = await HlmTrainer.create(gpu, config, { seed });
      try {
        curve = [];
        return start(trainer, { vocabulary, kind, text, seed }, (tokens) => new BatchSampler(tokens, { batch, length: contextLength, seed }));
      } catch (error) {
        trainer.destroy();
        throw error;
      }
    },

    /** Trains until `steps` steps have been taken in all, or until `pause`. */
    async train({ steps, rate }: { readonly steps: number; readonly rate: number }): Promise<Outcome> {
      const { trainer, sampler, evaluation } = current();
      goal = { steps, rate };
      controller = new AbortController();
      const { signal } = controller;
      const schedule = warmupCosine({ peak: rate, floor: rate / 10, warmup: Math.min(20, steps), steps });
      const every = Math.max(5, Math.round(steps / 40));
      let losses: number[] = [];
      let reported = performance.now();
      // Tokens, and the time of steps that follow another at once: samples, evaluations and files are not counted as training.
      const pace = { tokens: 0, ms: 0, before: undefined as number | undefined };
      let sampled = performance.now() - SAMPLE_MS / 2;
      let saved = performance.now();
      let sampleAt = 0;
      const report = (last: number) => {
        const tokensPerSecond = pace.ms > 0 ? (1000 * pace.tokens) / pace.ms : undefined;
        if (losses.length > 0) send("stepped", { first: last - losses.length + 1, losses, tokensPerSecond });
        losses = [];
        reported = performance.now();
      };
      let sum = 0;
      let since = 0;
      try {
        await train(trainer, {
          sampler,
          steps,
          schedule,
          signal,
          ...(evaluation.length > 0 && { evaluation: { batches: evaluation, every } }),
          settleAt: (step) => {
            if (performance.now() - sampled > SAMPLE_MS) sampleAt = step;
            return sampleAt === step;
          },
          onStep: async ({ step, loss, tokens: some }) => {
            losses.push(loss);
            sum += loss;
            since++;
            const now = performance.now();
            if (pace.before !== undefined) {
              pace.tokens += some;
              pace.ms += now - pace.before;
            }
            // What was long ago counts less.
            if (pace.ms > PACE_MS) {
              pace.tokens /= 2;
              pace.ms /= 2;
            }
            pace.before = now;
            if (now - reported > REPORT_MS) {
              report(step);
              await turn();
            }
            if (step === sampleAt) {
              await sample();
              sampled = performance.now();
              pace.before = undefined;
            }
            if (now - saved > SAVE_MS) {
              const bytes = await saveRun();
              send("saved", bytes, [bytes.buffer]);
              saved = performance.now();
              pace.before = undefined;
            }
          },
          onEvaluation: ({ step, loss }) => {
            report(step);
            pace.before = undefined;
            curve = [...curve, { step, train: since > 0 ? sum / since : null, validation: loss }];
            sum = 0;
            since = 0;
            send("evaluated", { step, loss });
          },
        });
        report(trainer.steps);
        await sample();
        return { step: trainer.steps, because: "done" };
      } catch (error) {
        report(trainer.steps);
        const { name, message } = error as Error;
        if (name === "AbortError") return { step: trainer.steps, because: "paused" };
        if (name !== "TrainingDivergedError") throw error;
        await trainer.recover();
        return { step: trainer.steps, because: "diverged", message };
      }
    },

    pause(): void {
      controller.abort();
    },

    /** The model as a checkpoint. */
    async weights(): Promise<Uint8Array<ArrayBuffer>> {
      const { trainer, vocabulary } = current();
      return writeSafetensors(await trainer.exportWeights(), { ...hlmMetadata(trainer.config), vocabulary: vocabulary.metadata, format: "pt" });
    },

    save: saveRun,

    /** A run that `save` wrote. @throws WeightsError, Error for a file that is none */
    async load(file: Uint8Array<ArrayBuffer> | ArrayBuffer): Promise<LoadedRun> {
      send("working", { step: "Loading the run …" });
      const { metadata } = parseSafetensors(file);
      const { demo, sampler, curve: points = "[]", text: own } = metadata;
      if (demo === undefined || sampler === undefined || own === undefined) throw new Error("it is no run that was saved here");
      const { kind, seed, steps, rate } = JSON.parse(demo) as { kind: VocabularyKind; seed: number; steps: number; rate: number };
      const trainer = await HlmTrainer.resume(gpu, file);
      try {
        const made = { vocabulary: vocabularyOf(trainer), kind, text: own, seed };
        const report = start(trainer, made, (tokens) => new BatchSampler(tokens, JSON.parse(sampler)));
        goal = { steps, rate };
        curve = JSON.parse(points) as Evaluation[];
        text = own;
        return { ...report, steps, rate, kind, text: own, curve };
      } catch (error) {
        trainer.destroy();
        throw error;
      }
    },
  };
}

function vocabularyFor(text: string, kind: VocabularyKind): Vocabulary {
  return kind === "bytes" ? byteVocabulary() : charVocabularyOf(text);
}

/** Characters, half pairs counted once. */
function count(text: string): number {
  let characters = 0;
  for (const _ of text) characters++;
  return characters;
}
