// Trains a small language model on a text file, in the terminal: what `npm run train` runs once the package is built. `--help` lists the options.
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { writeSafetensors } from "homm-webgpu";
import { byteVocabulary, charVocabularyOf, hlmMetadata, vocabularyOf } from "homm-webgpu/models";
import { requestNodeGpu } from "homm-webgpu/node";
import { BatchSampler, evaluationBatches, HlmTrainer, splitTokens, train, warmupCosine } from "homm-webgpu/train";

const usage = `npm run train -- --text FILE [options]
  --text FILE            what to learn, a UTF-8 text
  --vocabulary KIND      chars: the characters that the text has; bytes: any text, one token a byte of UTF-8 (chars)
  --validation X         the last part of the text, which is only evaluated (0.1)
model:
  --dim N                width (128)
  --layers N             (4)
  --context N            tokens of a training row (64)
  --order N              highest moment (2)
  --expand N             products an order, as a multiple of the width (2)
  --ffw N                width of the feed-forward parts, as a multiple of the width (2)
  --token-shift          mixes every token with the one before it; not in the original
  --fading               moments that fade with every token; not in the original
  --no-positions         leaves the position embedding out
training:
  --steps N              optimiser steps in all (2000)
  --batch N              rows of a step (12)
  --accumulate N         parts that a batch is cut into, to save memory (1)
  --lr X, --min-lr X     highest and last learning rate (0.001, 0.0001)
  --warmup N             steps of the linear rise (100)
  --beta1 X, --beta2 X   (0.9, 0.99)
  --weight-decay X       (0.1)
  --clip X               largest gradient norm (1)
  --positions N          rows begin at random positions from 0 to N (0)
  --seed N               of the weights and the batches (1)
reports:
  --evaluate-every N     steps between two validation losses (200)
  --evaluate-batches N   batches of a validation loss; all of the validation text where there are fewer (100)
  --sample-every N       steps between two samples, 0 for none (500)
  --sample-tokens N      length of a sample (200)
  --prompt TEXT          what the samples continue (the text's beginning)
  --out DIR              writes checkpoint.safetensors (the model), training.safetensors (to go on from) and curve.json there
  --save-every N         steps between two saves (1000)
  --resume FILE          goes on from a training.safetensors with its model, vocabulary, batches and optimiser; options of the training apply, those of the model do not
  --json                 one JSON object a line instead of text for people`;

/** @typedef {ReturnType<typeof readOptions>} Options */
/** @typedef {{ step: number, train?: number, validation?: number }} Point */

const options = readOptions();
try {
  await run(options);
} catch (error) {
  console.error(`\n${/** @type {Error} */ (error).message}`);
  process.exitCode = 1;
}

/** @param {Options} options */
async function run(options) {
  const text = await readFile(options.text, "utf8");
  const gpu = await requestNodeGpu();
  try {
    const resumed = options.resume === undefined ? undefined : await HlmTrainer.resume(gpu, await readFile(options.resume), options.optimiser);
    const vocabulary = resumed ? vocabularyOf(resumed) : options.vocabulary === "bytes" ? byteVocabulary() : charVocabularyOf(text);
    const tokens = splitTokens(vocabulary.encode(text), { validation: options.validation });
    const trainer =
      resumed ?? (await HlmTrainer.create(gpu, { ...options.model, vocabSize: vocabulary.size }, { seed: options.seed }, options.optimiser));
    const length = trainer.config.contextLength;
    const state = resumed?.metadata["sampler"];
    const sampler = new BatchSampler(tokens.train, state === undefined ? { batch: options.batch, length, seed: options.seed } : JSON.parse(state));
    const { batch } = sampler.state;
    const evaluation = tokens.validation.length > length && {
      batches: evaluationBatches(tokens.validation, { batch, length, limit: options.evaluateBatches }),
      every: options.evaluateEvery,
    };
    const prompt = options.prompt ?? [...text].slice(0, Math.min(16, length)).join("");
    const report = options.json ? jsonReport() : textReport(options.steps);
    report.begin({
      adapter: gpu.info,
      config: trainer.config,
      settings: trainer.settings,
      parameters: trainer.parameters,
      batch,
      tokens: { train: tokens.train.length, validation: tokens.validation.length },
      vocabulary: vocabulary.size,
      step: trainer.steps,
    });

    /** @type {Point[]} */
    const curve = JSON.parse(resumed?.metadata["curve"] ?? "[]");
    const save = async () => {
      if (options.out === undefined) return;
      await mkdir(options.out, { recursive: true });
      const metadata = { vocabulary: vocabulary.metadata, sampler: JSON.stringify(sampler.state), curve: JSON.stringify(curve) };
      const bytes = await trainer.save(metadata);
      const weights = await trainer.exportWeights();
      const model = writeSafetensors(weights, { ...hlmMetadata(trainer.config), vocabulary: vocabulary.metadata, format: "pt" });
      await replace(join(options.out, "training.safetensors"), bytes);
      await replace(join(options.out, "checkpoint.safetensors"), model);
      await replace(join(options.out, "curve.json"), `${JSON.stringify({ steps: trainer.steps, curve }, null, 1)}\n`);
      report.saved(options.out, trainer.steps);
    };
    const sample = async () => {
      const model = await trainer.model();
      try {
        const decode = vocabulary.decoder();
        let written = prompt;
        const refresh = Math.max(1, Math.floor(length / 2));
        const seed = (options.seed + trainer.steps) % 2 ** 32;
        const sampling = { maxTokens: options.sampleTokens, temperature: 0.8, seed, ...(length > 1 && { refresh }) };
        for await (const token of model.generate(vocabulary.encode(prompt), sampling)) written += decode([token]);
        report.sample(written, trainer.steps);
      } finally {
        model.destroy();
      }
    };

    /** @param {number} every @param {number} step */
    const due = (every, step) => every > 0 && step % every === 0 && step < options.steps;
    const controller = new AbortController();
    const interrupt = () => controller.abort();
    process.once("SIGINT", interrupt);
    let sum = 0;
    let count = 0;
    /** Loss of the training batches since the last point of the curve. */
    const mean = () => {
      const value = sum / count;
      sum = 0;
      count = 0;
      return value;
    };
    try {
      await train(trainer, {
        sampler,
        steps: options.steps,
        schedule: warmupCosine({ peak: options.lr, floor: options.minLr, warmup: Math.min(options.warmup, options.steps), steps: options.steps }),
        accumulate: options.accumulate,
        maxPosOffset: options.positions,
        ...(evaluation && { evaluation }),
        settleAt: (step) => due(options.sampleEvery, step) || due(options.saveEvery, step),
        signal: controller.signal,
        onStep: async (step) => {
          sum += step.loss;
          count++;
          report.step(step);
          if (!evaluation && due(options.evaluateEvery, step.step)) curve.push({ step: step.step, train: mean() });
          if (due(options.sampleEvery, step.step)) await sample();
          if (due(options.saveEvery, step.step)) await save();
        },
        onEvaluation: ({ step, loss }) => {
          const point = { step, train: mean(), validation: loss };
          curve.push(point);
          report.point(point);
        },
      });
      if (count > 0) curve.push({ step: trainer.steps, train: mean() });
      if (options.sampleEvery > 0) await sample();
    } catch (error) {
      // A step that diverged was not taken: what is saved is the last good state.
      const { name } = /** @type {Error} */ (error);
      if (name === "AbortError" || name === "TrainingDivergedError") await save();
      if (name !== "AbortError") throw error;
      report.stopped(trainer.steps);
      return;
    } finally {
      process.removeListener("SIGINT", interrupt);
    }
    await save();
    report.end(curve);
  } finally {
    gpu.destroy();
  }
}

/** A file is whole or is not replaced. @param {string} path @param {string | Uint8Array} data */
async function replace(path, data) {
  await writeFile(`${path}.part`, data);
  await rename(`${path}.part`, path);
}

/** For people: a line that keeps itself up to date, and what is worth keeping above it. @param {number} steps */
function textReport(steps) {
  const live = process.stdout.isTTY === true;
  let started = performance.now();
  let first = 0;
  let tokens = 0;
  let shown = 0;
  /** @param {string} line */
  const keep = (line) => process.stdout.write(`${live ? "\r\x1b[K" : ""}${line}\n`);
  return {
    /** @param {any} facts */
    begin({ adapter, config, parameters, batch, tokens, vocabulary, step }) {
      first = step;
      started = performance.now();
      keep(`adapter  ${adapter.description || adapter.vendor || "unnamed"} (${adapter.software ? "software, on the CPU" : "GPU"})`);
      keep(`text     ${grouped(tokens.train)} tokens to learn, ${grouped(tokens.validation)} to validate, vocabulary of ${vocabulary}`);
      keep(`model    ${grouped(parameters)} parameters, ${config.layers} layers of width ${config.dim} and order ${config.order}`);
      keep(
        `training ${batch} rows of ${config.contextLength} tokens a step, ${step > 0 ? `on from step ${grouped(step)} ` : ""}to step ${grouped(steps)}\n`,
      );
    },
    /** @param {import("homm-webgpu/train").StepReport} report */
    step({ step, loss, gradNorm, lr, tokens: some }) {
      tokens += some;
      const now = performance.now();
      // The first steps include compiling.
      if (step - first === 2) {
        started = now;
        tokens = 0;
      }
      const seconds = (now - started) / 1000;
      const pace = step - first > 2 ? `${grouped(tokens / seconds)} tokens/s, ${duration(((steps - step) * seconds) / (step - first - 2))} left` : "";
      const line = `step ${step}/${steps}  loss ${loss.toFixed(3)}  gradient ${gradNorm.toFixed(2)}  rate ${lr.toExponential(1)}  ${pace}`;
      if (live && (now - shown > 100 || step === steps)) {
        process.stdout.write(`\r\x1b[K${bar(step / steps)} ${line}`.slice(0, (process.stdout.columns ?? 120) + 4));
        shown = now;
      } else if (!live && (step % 100 === 0 || step === steps || step - first === 1)) keep(line);
    },
    /** @param {Point} point */
    point({ step, train, validation }) {
      keep(`step ${step}: training loss ${train?.toFixed(3)}, validation loss ${validation?.toFixed(3)}`);
    },
    /** @param {string} text @param {number} step */
    sample(text, step) {
      keep(`--- sample after step ${step}\n${text}\n---`);
    },
    /** @param {string} folder @param {number} step */
    saved(folder, step) {
      keep(`saved step ${step} in ${folder}`);
    },
    /** @param {number} step */
    stopped(step) {
      keep(`stopped after step ${step}`);
    },
    /** @param {Point[]} _curve */
    end(_curve) {
      keep("done");
    },
  };
}

/** For programs. */
function jsonReport() {
  const write = (/** @type {object} */ value) => console.log(JSON.stringify(value));
  const started = performance.now();
  const seconds = () => Math.round(performance.now() - started) / 1000;
  return {
    /** @param {any} facts */
    begin: ({ adapter, ...facts }) => write({ event: "begin", adapter: { ...adapter }, ...facts }),
    /** @param {import("homm-webgpu/train").StepReport} report */
    step: (report) => write({ event: "step", seconds: seconds(), ...report }),
    /** @param {Point} point */
    point: (point) => write({ event: "evaluation", seconds: seconds(), ...point }),
    /** @param {string} text @param {number} step */
    sample: (text, step) => write({ event: "sample", step, text }),
    /** @param {string} folder @param {number} step */
    saved: (folder, step) => write({ event: "saved", step, folder }),
    /** @param {number} step */
    stopped: (step) => write({ event: "stopped", step }),
    /** @param {Point[]} curve */
    end: (curve) => write({ event: "end", seconds: seconds(), curve }),
  };
}

function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        text: { type: "string" },
        vocabulary: { type: "string", default: "chars" },
        validation: { type: "string", default: "0.1" },
        dim: { type: "string", default: "128" },
        layers: { type: "string", default: "4" },
        context: { type: "string", default: "64" },
        order: { type: "string", default: "2" },
        expand: { type: "string", default: "2" },
        ffw: { type: "string", default: "2" },
        steps: { type: "string", default: "2000" },
        batch: { type: "string", default: "12" },
        accumulate: { type: "string", default: "1" },
        lr: { type: "string", default: "0.001" },
        "min-lr": { type: "string", default: "0.0001" },
        warmup: { type: "string", default: "100" },
        beta1: { type: "string", default: "0.9" },
        beta2: { type: "string", default: "0.99" },
        "token-shift": { type: "boolean", default: false },
        fading: { type: "boolean", default: false },
        "no-positions": { type: "boolean", default: false },
        "weight-decay": { type: "string", default: "0.1" },
        clip: { type: "string", default: "1" },
        positions: { type: "string", default: "0" },
        seed: { type: "string", default: "1" },
        "evaluate-every": { type: "string", default: "200" },
        "evaluate-batches": { type: "string", default: "100" },
        "sample-every": { type: "string", default: "500" },
        "sample-tokens": { type: "string", default: "200" },
        prompt: { type: "string" },
        out: { type: "string" },
        "save-every": { type: "string", default: "1000" },
        resume: { type: "string" },
        json: { type: "boolean", default: false },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.help) {
      console.log(usage);
      process.exit(0);
    }
    const { text, vocabulary } = values;
    if (text === undefined) throw new Error("--text must name a text file");
    if (vocabulary !== "chars" && vocabulary !== "bytes") throw new Error(`--vocabulary must be chars or bytes, got ${JSON.stringify(vocabulary)}`);
    if (values.prompt === "") throw new Error("--prompt must have at least one character, got an empty one");
    /** @typedef {Exclude<keyof typeof values, "json" | "help" | "token-shift" | "fading" | "no-positions">} Text */
    const whole = (/** @type {Text} */ key, min = 1, max = 2 ** 31) => integer(`--${key}`, values[key] ?? "", min, max);
    const real = (/** @type {Text} */ key, min = 0, max = 1000) => number(`--${key}`, values[key] ?? "", min, max);
    const batch = whole("batch");
    const accumulate = whole("accumulate");
    if (batch % accumulate !== 0) throw new Error(`--accumulate must divide --batch ${batch}, got ${accumulate}`);
    return {
      text,
      vocabulary,
      validation: real("validation", 0, 0.99),
      model: {
        dim: whole("dim"),
        layers: whole("layers"),
        contextLength: whole("context"),
        order: whole("order", 1, 8),
        orderExpand: whole("expand", 1, 1024),
        ffwExpand: whole("ffw"),
        // The original's model has none of these in its configuration.
        ...(values["token-shift"] && { tokenShift: true }),
        ...(values.fading && { decay: true }),
        ...(values["no-positions"] && { positions: false }),
      },
      optimiser: {
        lr: real("lr"),
        betas: /** @type {[number, number]} */ ([real("beta1", 0, 0.999999), real("beta2", 0, 0.999999)]),
        weightDecay: real("weight-decay"),
        clipNorm: real("clip", 1e-6),
      },
      steps: whole("steps", 0),
      batch,
      accumulate,
      lr: real("lr"),
      minLr: real("min-lr"),
      warmup: whole("warmup", 0),
      positions: whole("positions", 0, 2 ** 31 - 1),
      seed: whole("seed", 0, 2 ** 32 - 1),
      evaluateEvery: whole("evaluate-every"),
      evaluateBatches: whole("evaluate-batches"),
      sampleEvery: whole("sample-every", 0),
      sampleTokens: whole("sample-tokens", 1),
      prompt: values.prompt,
      out: values.out,
      saveEvery: whole("save-every"),
      resume: values.resume,
      json: values.json === true,
    };
  } catch (error) {
    console.error(`${/** @type {Error} */ (error).message}\nnpm run train -- --help lists the options`);
    process.exit(2);
  }
}

/** @param {string} option @param {string} text @param {number} min @param {number} max */
function number(option, text, min, max) {
  const value = Number(text);
  if (text.trim() !== "" && value >= min && value <= max) return value;
  throw new Error(`${option} must be a number from ${min} to ${max}, got ${JSON.stringify(text)}`);
}

/** @param {string} option @param {string} text @param {number} min @param {number} max */
function integer(option, text, min, max) {
  const value = number(option, text, min, max);
  if (Number.isInteger(value)) return value;
  throw new Error(`${option} must be a whole number, got ${JSON.stringify(text)}`);
}

/** @param {number} part */
function bar(part) {
  const full = Math.round(part * 20);
  return `[${"#".repeat(full)}${" ".repeat(20 - full)}]`;
}

/** @param {number} seconds */
function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  return seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** @param {number} value */
function grouped(value) {
  return Math.round(value).toLocaleString("en-US");
}
