import { afterAll, describe, expect, it } from "vitest";
import { HomLayer, parseSafetensors, requestGpu, Tensor } from "../../src/index.ts";
import { charVocabulary, Hlm, hlmConfigOf } from "../../src/models/index.ts";
import { planSample } from "../../src/ops/sample.ts";
import { hlmReference, sample as sampleReference } from "../../src/reference/index.ts";
import { Program } from "../../src/runtime/program.ts";
import { normals, randomParams } from "../reference/inputs.ts";
import { expectClose } from "../support/compare.ts";
import { loadFixture } from "../support/fixtures.ts";
import { getDevice } from "../support/gpu.ts";
import { LAYER_F16, LAYER_F32, LAYER_I8, MODEL_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });
const adapter = gpu.info.description;
const weights = parseSafetensors(await loadFixture("demo/public/checkpoints/hlm_shakespeare.safetensors"));
const config = hlmConfigOf(weights);
const { vocabSize } = config;
const model = await Hlm.create(gpu, config, weights);
const vocabulary = charVocabulary(weights);
afterAll(() => model.destroy());

/** Float64 logits of the model, whose limit on the length is only an argument check. */
const params = Object.fromEntries([...weights].map((tensor) => [tensor.name, tensor.toFloat32()]));
const referenceLogits = (ids: readonly number[]) => hlmReference({ ...config, contextLength: Math.max(ids.length, 1) }, params, ids);

async function collect(prompt: string, options: Parameters<Hlm["generate"]>[1]): Promise<number[]> {
  const tokens: number[] = [];
  for await (const token of model.generate(vocabulary.encode(prompt), options)) tokens.push(token);
  return tokens;
}

describe("sample", () => {
  const size = 1000;
  const logits = Float32Array.from(normals(1, 3 * size, 3));
  it.each([
    { temperature: 0, topK: size },
    { temperature: 1, topK: size },
    { temperature: 0.7, topK: 1 },
    { temperature: 1.5, topK: 5 },
    { temperature: 1, topK: 999 },
  ])("temperature $temperature, top $topK draws the tokens of the twin", async ({ temperature, topK }) => {
    using input = Tensor.from(gpu, logits, [3, size]);
    using ids = Tensor.from(gpu, new Float32Array(4), [4]);
    using entry = Tensor.from(gpu, new Float32Array(4), [4]);
    const slot = (buffer: string, bytes: number) => ({ buffer, offset: 0, size: bytes });
    const slots = { logits: slot("logits", 3 * size * 4), entry: slot("entry", 16), ids: slot("ids", 16) };
    const program = new Program(gpu, [planSample({ ...slots, batch: 3, vocabulary: size, temperature, topK, seed: 42 })], new Map());
    for (let step = 0; step < 20; step++) {
      gpu.device.queue.writeBuffer(entry.buffer, 0, Uint32Array.of(step));
      gpu.submit("test", (pass) => program.record(pass, { logits: input.buffer, entry: entry.buffer, ids: ids.buffer }));
      const drawn = new Uint32Array((await ids.read()).buffer, 0, 3);
      expect([...drawn]).toEqual([...sampleReference(logits, { vocabulary: size, temperature, topK, seed: 42, step })]);
    }
    program.destroy();
  });

  it("draws from the softmax: frequencies of 4,000 draws of the twin", () => {
    const four = [1, 0, -1, 2];
    const counts = [0, 0, 0, 0];
    const draws = 4_000;
    for (let step = 0; step < draws; step++) {
      const [token = 0] = sampleReference(four, { vocabulary: 4, temperature: 1, topK: 4, seed: 7, step });
      counts[token]!++;
    }
    const total = four.reduce((sum, logit) => sum + Math.exp(logit), 0);
    four.forEach((logit, i) => {
      const p = Math.exp(logit) / total;
      // Five standard deviations of a binomial count.
      expect(Math.abs(counts[i]! - draws * p)).toBeLessThan(5 * Math.sqrt(draws * p * (1 - p)));
    });
  });
});

describe("a model with smaller weights", () => {
  // The residual stream carries most of a logit, so that the model stays within the bound of a layer: 1.4e-4 and 1.8e-3 measured.
  it.each([
    { weightDtype: "f16", relL2: LAYER_F16, share: 0.51 },
    { weightDtype: "i8", relL2: LAYER_I8, share: 0.27 },
  ] as const)("$weightDtype", async ({ weightDtype, relL2, share }) => {
    using small = await Hlm.create(gpu, config, weights, { weightDtype });
    const table = vocabSize * config.dim * 4;
    expect((small.weightBytes - table) / (model.weightBytes - table)).toBeLessThan(share);
    const ids = vocabulary.encode("But soft, what light through yonder window breaks?");
    using logits = small.forward(ids);
    expectClose(await logits.read(), referenceLogits([...ids]), { relL2, what: "logits", adapter });
    using state = small.createState();
    using stepped = small.step(state, ids);
    expectClose(await stepped.read(), await logits.read(), { relL2: MODEL_F32, what: "steps", adapter });
  });
});

describe("generation on the state", () => {
  it("is recomputation, token for token, for 500 tokens", async () => {
    const prompt = "First Citizen:";
    const tokens = await collect(prompt, { maxTokens: 500, temperature: 0 });
    const ids = [...vocabulary.encode(prompt), ...tokens];
    const logits = referenceLogits(ids);
    const start = ids.length - tokens.length;
    tokens.forEach((token, i) => {
      const row = logits.subarray((start + i - 1) * vocabSize, (start + i) * vocabSize);
      expect(row.indexOf(Math.max(...row)), `token ${i}`).toBe(token);
    });
  });

  it("takes in a prompt in any pieces, longer than contextLength", async () => {
    const ids = Int32Array.from({ length: 300 }, (_, i) => (i * 7 + (i >> 3)) % vocabSize);
    const expected = referenceLogits([...ids]);
    for (const piece of [300, 97, 1]) {
      using state = model.createState();
      const { bytes } = state;
      const actual = new Float32Array(expected.length);
      for (let from = 0; from < ids.length; from += piece) {
        const part = ids.subarray(from, from + piece);
        using logits = model.step(state, part);
        actual.set(await logits.read(), from * vocabSize);
      }
      expectClose(actual, expected, { relL2: MODEL_F32, what: `logits in pieces of ${piece}`, adapter });
      expect(state.position).toBe(300);
      expect(state.bytes).toBe(bytes);
    }
  });

  it("advances a batch of texts, each with the logits of its own", async () => {
    const batch = 9;
    const ids = Int32Array.from({ length: batch * 20 }, (_, i) => (i * 13 + (i >> 2)) % vocabSize);
    using state = model.createState({ batch });
    const first = Int32Array.from({ length: batch * 19 }, (_, i) => ids[Math.floor(i / 19) * 20 + (i % 19)]!);
    const second = Int32Array.from({ length: batch }, (_, b) => ids[b * 20 + 19]!);
    using prefill = model.step(state, first, { logits: "last" });
    expect(prefill.shape).toEqual([batch, 1, vocabSize]);
    using logits = model.step(state, second);
    const values = await logits.read();
    for (const b of [0, 4, 8]) {
      const expected = referenceLogits([...ids.subarray(b * 20, (b + 1) * 20)]).slice(-vocabSize);
      expectClose(values.slice(b * vocabSize, (b + 1) * vocabSize), expected, { relL2: MODEL_F32, what: `text ${b}`, adapter });
    }
  });

  it("branches: a clone goes another way and leaves the original alone", async () => {
    using state = model.createState();
    const straight = await collect("ROMEO:", { maxTokens: 30, temperature: 0 });
    const first: number[] = [];
    for await (const token of model.generate(vocabulary.encode("ROMEO:"), { maxTokens: 10, temperature: 0, state })) first.push(token);
    expect(state.position).toBe(6 + 9);
    using branch = state.clone();
    const other: number[] = [];
    for await (const token of model.generate(vocabulary.encode("!"), { maxTokens: 20, temperature: 0, state: branch })) other.push(token);
    const rest: number[] = [];
    for await (const token of model.generate(Int32Array.of(first.at(-1)!), { maxTokens: 20, temperature: 0, state })) rest.push(token);
    expect([...first, ...rest]).toEqual(straight);
    expect(other).not.toEqual(rest);
  });

  it("leaves a given state with what was yielded when it ends early", async () => {
    using state = model.createState();
    for await (const token of model.generate(vocabulary.encode("ROMEO:"), { maxTokens: 50, temperature: 0, state })) {
      if (state.position >= 10) break;
      expect(token).toBeGreaterThanOrEqual(0);
    }
    expect(state.position).toBe(10);
  });

  it("waits for a slow caller", async () => {
    const submits: number[] = [];
    const { queue } = gpu.device;
    const submit = queue.submit.bind(queue);
    queue.submit = (buffers) => {
      submits.push(performance.now());
      return submit(buffers);
    };
    try {
      let seen = 0;
      for await (const _ of model.generate(vocabulary.encode("A"), { maxTokens: 40, temperature: 0 })) {
        if (++seen === 5) {
          await new Promise((resolve) => setTimeout(resolve, 50));
          // One submit a token, and no more than four tokens ahead of the one that was taken.
          expect(submits.length).toBeLessThanOrEqual(5 + 4);
          break;
        }
      }
    } finally {
      queue.submit = submit;
    }
  });

  it("goes on from its last tokens where it is told to refresh", async () => {
    const refresh = 40;
    const tokens = await collect("ROMEO:", { maxTokens: 200, temperature: 0, refresh });
    const ids = [...vocabulary.encode("ROMEO:")];
    let context = [...ids];
    for (const token of tokens) {
      if (context.length > config.contextLength) context = ids.slice(-refresh);
      const logits = referenceLogits(context).slice(-vocabSize);
      expect(logits.indexOf(Math.max(...logits))).toBe(token);
      ids.push(token);
      context.push(token);
    }
  });

  it("keeps to a window", async () => {
    using whole = model.createState();
    using wide = model.createState({ window: 64 });
    using narrow = model.createState({ window: 4 });
    const ids = vocabulary.encode("O Romeo, Romeo!");
    const read = async (state: typeof whole) => {
      using logits = model.step(state, ids, { logits: "last" });
      return logits.read();
    };
    const expected = await read(whole);
    expectClose(await read(wide), expected, { relL2: MODEL_F32, what: "a window that holds the whole text", adapter });
    expect(await read(narrow)).not.toEqual(expected);
  });
});

describe("speculative decoding on a layer", () => {
  it("takes a rejected draft back by subtracting it", async () => {
    const dim = 16;
    const shape = { dim, order: 2, orderExpand: 2 };
    const own = Object.fromEntries(Object.entries(randomParams(5, shape)).map(([key, values]) => [key, Float32Array.from(values)]));
    using layer = await HomLayer.create(gpu, shape, own);
    const tokens = (seed: number, n: number) => Tensor.from(gpu, Float32Array.from(normals(seed, n * dim)), [1, n, dim]);
    using text = tokens(1, 200);
    using draft = tokens(2, 5);
    using next = tokens(3, 1);
    using state = layer.createState();
    layer.append(state, text);
    using accepted = state.clone();
    using verified = layer.step(state, draft);
    expect(verified.shape).toEqual([1, 5, dim]);
    // The first two tokens are accepted, the last three rejected.
    using rejected = Tensor.wrap(gpu, draft.buffer, [1, 3, dim], { byteOffset: 2 * dim * 4 });
    using kept = Tensor.wrap(gpu, draft.buffer, [1, 2, dim]);
    using wrong = layer.createState();
    layer.append(wrong, rejected);
    state.subtract(wrong);
    layer.append(accepted, kept);
    expect(state.count).toEqual([202]);
    using a = layer.step(state, next);
    using b = layer.step(accepted, next);
    expectClose(await a.read(), await b.read(), { relL2: LAYER_F32, what: "after the rollback", adapter });
  });
});
