// Text from the shipped checkpoint, in the terminal: what `npm start` runs once the package is built. `--help` lists the options.
import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { parseSafetensors } from "homm-webgpu";
import { charVocabulary, Hlm, hlmConfigOf } from "homm-webgpu/models";
import { requestNodeGpu } from "homm-webgpu/node";

const usage = `options of the terminal demo:
  --prompt TEXT      what the model continues (ROMEO:)
  --tokens N         how many characters to add (200)
  --temperature X    0 always takes the likeliest character, 1 samples from the model's distribution (0.8)
  --top-k N          sample among the N likeliest characters only (all of them)
  --seed N           the same seed gives the same text; 0 to 4294967295 (a random one, which is printed)
  --position N       compare the cost of a token here with that of token 10; 0 leaves it out (10000)
and of npm start: --once, --port N, --install`;

const options = readOptions();
try {
  await run(options);
} catch (error) {
  console.error(`\n${/** @type {Error} */ (error).message}`);
  process.exitCode = 1;
}

/** @param {ReturnType<typeof readOptions>} options */
async function run({ prompt, tokens, position, ...sampling }) {
  const file = await readFile(new URL("public/checkpoints/hlm_shakespeare.safetensors", import.meta.url));
  const weights = parseSafetensors(file);
  const vocabulary = charVocabulary(weights);
  const unknown = [...new Set(prompt)].filter((character) => !vocabulary.knows(character));
  if (unknown.length) {
    const known = vocabulary.decode(Array(vocabulary.size).keys()).replace("\n", "").replace(" ", "");
    refuse(`--prompt: the model does not know ${unknown.map(named).join(", ")}; it knows the line break, the space and ${known}`);
  }

  const gpu = await requestNodeGpu();
  try {
    const started = performance.now();
    const model = await Hlm.create(gpu, hlmConfigOf(weights), weights);
    const parameters = Array.from(weights, (tensor) => tensor.size).reduce((a, b) => a + b, 0);
    const { layers, dim, order } = model.config;
    console.log(`adapter  ${gpu.info.description || gpu.info.vendor || "unnamed"} (${gpu.info.software ? "software, on the CPU" : "GPU"})`);
    console.log(`model    ${grouped(parameters)} parameters, ${layers} layers of width ${dim} and order ${order}; ready in ${seconds(started)}`);
    const choice = sampling.topK === undefined ? "" : ` among the ${sampling.topK} likeliest`;
    console.log(`sampling temperature ${sampling.temperature}${choice}, seed ${sampling.seed}\n`);

    process.stdout.write(prompt);
    const begin = performance.now();
    let count = 0;
    let first = begin;
    // The model was trained on short texts: past their length it goes on from the second half of what it sees.
    const refresh = Math.ceil(model.config.contextLength / 2);
    for await (const token of model.generate(vocabulary.encode(prompt), { maxTokens: tokens, refresh, ...sampling })) {
      process.stdout.write(vocabulary.decode([token]));
      if (++count === 1) first = performance.now();
    }
    console.log(
      `\n\n${count} token${count === 1 ? "" : "s"} in ${seconds(begin)}${count > 1 ? `, ${rate(count - 1, first)} from the second token on` : ""}`,
    );
    console.log(`weights on the GPU: ${(model.weightBytes / 2 ** 20).toFixed(2)} MiB`);
    if (position > 0) await compareCosts(gpu, model, position);
    model.destroy();
  } finally {
    gpu.destroy();
  }
}

/**
 * What the model keeps of a text is a sum and a count a layer: a token costs the same after 10,000 others as after 10.
 * @param {import("homm-webgpu").Gpu} gpu @param {Hlm} model @param {number} position
 */
async function compareCosts(gpu, model, position) {
  const ids = (/** @type {number} */ n) => Int32Array.from({ length: n }, (_, i) => (i * 7) % model.config.vocabSize);
  console.log(`taking in ${grouped(position)} tokens to compare the cost of the next with that of token 10 …`);
  const states = [10, position].map((length) => {
    const state = model.createState();
    model.step(state, ids(length), { logits: "last" }).destroy();
    return state;
  });
  await gpu.device.queue.onSubmittedWorkDone();
  /** @type {number[][]} */
  const times = states.map(() => []);
  for (let round = 0; round < 9; round++) {
    for (const [i, state] of states.entries()) {
      const start = performance.now();
      for (let step = 0; step < 16; step++) model.step(state, ids(1)).destroy();
      await gpu.device.queue.onSubmittedWorkDone();
      times[i]?.push((performance.now() - start) / 16);
    }
  }
  const [near = 0, far = 0] = times.map((values) => values.sort((a, b) => a - b)[4] ?? 0);
  const [state] = states;
  console.log(`state: ${grouped(state?.bytes ?? 0)} bytes, at any length`);
  console.log(
    `a token costs ${near.toFixed(2)} ms at position 10 and ${far.toFixed(2)} ms at position ${grouped(position)}: ${(far / near).toFixed(2)} times as much`,
  );
  for (const each of states) each.destroy();
}

function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        prompt: { type: "string", default: "ROMEO:" },
        tokens: { type: "string", default: "200" },
        temperature: { type: "string", default: "0.8" },
        "top-k": { type: "string" },
        seed: { type: "string", default: String(Math.floor(Math.random() * 2 ** 32)) },
        position: { type: "string", default: "10000" },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.help) {
      console.log(usage);
      process.exit(0);
    }
    if (values.prompt === "") throw new Error("--prompt must have at least one character, got an empty one");
    const topK = values["top-k"];
    return {
      prompt: values.prompt,
      tokens: integer("--tokens", values.tokens, 1, 1_000_000),
      position: integer("--position", values.position, 0, 1_000_000),
      temperature: number("--temperature", values.temperature, 0, 100),
      ...(topK !== undefined && { topK: integer("--top-k", topK, 1, 2 ** 31) }),
      seed: integer("--seed", values.seed, 0, 2 ** 32 - 1),
    };
  } catch (error) {
    refuse(`${/** @type {Error} */ (error).message}\nnpm start -- --help lists the options`);
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

/** @param {string} message @returns {never} */
function refuse(message) {
  console.error(message);
  process.exit(2);
}

/** @param {string} character */
function named(character) {
  return `${JSON.stringify(character)} (U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")})`;
}

/** @param {number} count @param {number} since */
function rate(count, since) {
  const perSecond = (1000 * count) / (performance.now() - since);
  return `${perSecond.toFixed(perSecond < 10 ? 1 : 0)} tokens/s`;
}

/** @param {number} since */
function seconds(since) {
  return `${((performance.now() - since) / 1000).toFixed(2)} s`;
}

/** @param {number} value */
function grouped(value) {
  return value.toLocaleString("en-US");
}
