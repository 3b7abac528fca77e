import { afterAll, describe, expect, it } from "vitest";
import { parseSafetensors, requestGpu, Tensor } from "../../src/index.ts";
import { charVocabulary, Hlm, HomBlock, hlmConfigOf } from "../../src/models/index.ts";
import { expectClose } from "../support/compare.ts";
import { loadFixture, loadJson } from "../support/fixtures.ts";
import { goldenCases, hlmGolden, homGolden, loadGolden } from "../support/golden.ts";
import { getDevice } from "../support/gpu.ts";
import { poisoned } from "../support/poison.ts";
import { LAYER_F32, MODEL_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });
const adapter = gpu.info.description;
const blocks = (await goldenCases("hom_layer")).map((entry) => ({ name: entry.name, entry }));
const models = (await goldenCases("hlm")).map((entry) => ({ name: entry.name, entry }));

describe("HomBlock, golden vectors", () => {
  it.each(blocks)("$name", async ({ entry }) => {
    const { shape, params, args, expected, outputShape } = homGolden(await loadGolden(entry));
    const { dim, order, orderExpand, ffwExpand } = shape;
    using block = await HomBlock.create(gpu, { dim, order, orderExpand, ffwExpand }, params);
    using query = Tensor.from(gpu, args.query, [args.batch, args.queryLength, dim]);
    using context = args.context && Tensor.from(gpu, args.context, [args.batch, args.contextLength, dim]);
    using out = poisoned(gpu, outputShape);
    block.forward(query, { context, mask: args.mask, out });
    expectClose(await out.read(), expected, { relL2: LAYER_F32, what: `${entry.name} y`, adapter, shape: outputShape });
  });
});

describe("Hlm, golden vectors", () => {
  it.each(models)("$name", async ({ entry }) => {
    const { config, weights, tokenIds, batch, posOffset, attentionMask, logits, logitsShape } = hlmGolden(await loadGolden(entry));
    using model = await Hlm.create(gpu, config, weights);
    using actual = model.forward(tokenIds, { batch, ...(posOffset && { posOffset }), ...(attentionMask && { attentionMask }) });
    expect(actual.shape).toEqual(logitsShape);
    expectClose(await actual.read(), logits, { relL2: MODEL_F32, what: `${entry.name} logits`, adapter, shape: logitsShape });
  });
});

interface Expected {
  readonly cases: Readonly<Record<string, { prompt_ids: number[]; last_logits: number[]; greedy_ids: number[]; greedy_text: string }>>;
}

describe("the shipped checkpoint", async () => {
  const weights = parseSafetensors(await loadFixture("demo/public/checkpoints/hlm_shakespeare.safetensors"));
  const expected = await loadJson<Expected>("test/fixtures/hlm_shakespeare.expected.json");
  const model = await Hlm.create(gpu, hlmConfigOf(weights), weights);
  const vocabulary = charVocabulary(weights);
  afterAll(() => model.destroy());

  it.each(Object.entries(expected.cases))(
    "continues %j as the original does",
    async (prompt, { prompt_ids, last_logits, greedy_ids, greedy_text }) => {
      const ids = vocabulary.encode(prompt);
      expect([...ids]).toEqual(prompt_ids);
      using logits = model.forward(ids);
      const last = (await logits.read()).slice(-last_logits.length);
      expectClose(last, last_logits, { relL2: MODEL_F32, what: "last logits", adapter });
      const generated: number[] = [];
      for await (const token of model.generate(ids, { maxTokens: greedy_ids.length - ids.length, temperature: 0 })) generated.push(token);
      expect([...ids, ...generated]).toEqual(greedy_ids);
      expect(prompt + vocabulary.decode(generated)).toBe(greedy_text);
    },
  );

  it("gives the same text for a seed and another for another", async () => {
    const run = async (seed: number) => {
      const tokens: number[] = [];
      for await (const token of model.generate(vocabulary.encode("KING"), { maxTokens: 24, temperature: 0.9, topK: 20, seed })) tokens.push(token);
      return vocabulary.decode(tokens);
    };
    const text = await run(7);
    expect(await run(7)).toBe(text);
    expect(await run(8)).not.toBe(text);
  });

  it("stops when it is told to", async () => {
    const controller = new AbortController();
    const tokens: number[] = [];
    const reason = new Error("enough");
    await expect(async () => {
      for await (const token of model.generate(vocabulary.encode("KING"), { maxTokens: 50, signal: controller.signal })) {
        tokens.push(token);
        if (tokens.length === 3) controller.abort(reason);
      }
    }).rejects.toBe(reason);
    expect(tokens).toHaveLength(3);
  });
});
