import { describe, expect, it } from "vitest";
import { WeightsError } from "../../src/errors.ts";
import { collectParams, normaliseKeys, parseSafetensors, type TensorSource, Weights, writeSafetensors } from "../../src/weights/index.ts";
import { loadFixture } from "../support/fixtures.ts";

/** Weights whose every tensor is a scalar that tells which key it came from. */
const keys = (...names: string[]): Weights =>
  parseSafetensors(
    writeSafetensors(Object.fromEntries(names.map((name) => [name, { shape: [], data: Float32Array.of(names.indexOf(name)) }])), { note: "kept" }),
  );

const named = (weights: Weights): Record<string, number> => Object.fromEntries(Array.from(weights, (t) => [t.name, t.toFloat32()[0]!]));

describe("normaliseKeys", () => {
  it.each([
    ["none", ""],
    ["a wrapper module", "model."],
    ["an averaged model", "ema.ema_model."],
    ["a compiled model", "_orig_mod."],
    ["a compiled model in a wrapper", "model._orig_mod."],
    ["a wrapper in a compiled model", "_orig_mod.model."],
    ["an averaged compiled model", "ema.ema_model._orig_mod."],
    ["a compiled averaged model", "_orig_mod.ema.ema_model."],
    ["a wrapper twice", "model.model."],
    ["all of them", "model.ema.ema_model._orig_mod."],
  ])("removes the prefix of %s: %j", (_name, prefix) => {
    const weights = keys(...["token_emb.weight", "layers.0.hom.ho_proj.weight", "output_proj.bias"].map((key) => prefix + key));
    const result = normaliseKeys(weights);
    expect(named(result)).toEqual({ "token_emb.weight": 0, "layers.0.hom.ho_proj.weight": 1, "output_proj.bias": 2 });
    expect({ ...result.metadata }).toEqual({ note: "kept" });
    // nothing is copied, and what was given is as before
    expect(result.get("output_proj.bias").bytes.buffer).toBe(weights.get(`${prefix}output_proj.bias`).bytes.buffer);
    expect(weights.names).toHaveLength(3);
  });

  it.each(["model", "modelled.a", "my_model.a", "ema.a", "ema_model.a", "orig_mod.a", "Model.a", "layers.model.a", "emaXema_model.a"])(
    "leaves %s alone",
    (key) => {
      expect(normaliseKeys(keys(key)).names).toEqual([key]);
    },
  );

  it("keeps no weights at all as they are", () => {
    expect(normaliseKeys(Weights.from({})).size).toBe(0);
  });

  it("takes plain arrays, too", () => {
    expect(
      normaliseKeys({ "model.a": { shape: [1], data: Float32Array.of(5) } })
        .get("a")
        .toFloat32(),
    ).toEqual(Float32Array.of(5));
  });

  it.each([
    ["two prefixes", ["model.a", "ema.ema_model.a"], '1 key with "ema.ema_model.", 1 key with "model."'],
    ["a prefix and none", ["model.a", "model.b", "step"], '2 keys with "model.", 1 key without a prefix'],
    ["different depths", ["model.a", "model._orig_mod.b"], '1 key with "model.", 1 key with "model._orig_mod."'],
    ["keys that would collide", ["model.a", "a"], '1 key without a prefix, 1 key with "model."'],
  ])("guesses nothing where there are %s", (_name, names, groups) => {
    expect(() => normaliseKeys(keys(...names))).toThrow(WeightsError);
    expect(() => normaliseKeys(keys(...names))).toThrow(
      `normaliseKeys: the keys must all carry the same prefix, got ${groups}; say which to keep with { prefix }`,
    );
    expect(() => normaliseKeys(keys(...names), { where: "Hlm.create" })).toThrow(/^Hlm\.create: the keys must/);
  });

  describe("with prefix", () => {
    const both = keys("model.a", "ema.ema_model.a", "ema.ema_model.b", "step");
    it("keeps the keys that carry it", () => {
      expect(named(normaliseKeys(both, { prefix: "ema.ema_model." }))).toEqual({ a: 1, b: 2 });
      expect(named(normaliseKeys(both, { prefix: "model." }))).toEqual({ a: 0 });
      expect(named(normaliseKeys(both, { prefix: "" }))).toEqual(named(both));
      expect(named(normaliseKeys(keys("net.x", "y"), { prefix: "net." }))).toEqual({ x: 0 });
    });
    it("refuses one that no key carries", () => {
      expect(() => normaliseKeys(both, { prefix: "_orig_mod." })).toThrow(WeightsError);
      expect(() => normaliseKeys(both, { prefix: "_orig_mod." })).toThrow(
        'prefix must be the beginning of some keys, got "_orig_mod."; the file has 2 keys with "ema.ema_model.", 1 key without a prefix, 1 key with "model."',
      );
      expect(() => normaliseKeys(both, { prefix: 3 as unknown as string })).toThrow(TypeError);
    });
  });

  describe("with the model's own keys", () => {
    const expected = ["a", "b"];
    it("drops what else is in the file", () => {
      const weights = keys("model._orig_mod.a", "model._orig_mod.b", "model.other", "optimizer.a.step", "step");
      expect(named(normaliseKeys(weights, { expected }))).toEqual({ a: 0, b: 1 });
    });
    it("needs no prefix where the keys are there without one", () => {
      expect(named(normaliseKeys(keys("a", "b", "model.c"), { expected }))).toEqual({ a: 0, b: 1, "model.c": 2 });
    });
    it("takes the prefix under which more of them are", () => {
      expect(named(normaliseKeys(keys("model.a", "ema.ema_model.a", "ema.ema_model.b"), { expected }))).toEqual({ a: 1, b: 2 });
    });
    it("knows a model that has a part called model", () => {
      const own = ["model.a", "model.b"];
      expect(named(normaliseKeys(keys("model.a", "model.b"), { expected: own }))).toEqual({ "model.a": 0, "model.b": 1 });
      expect(named(normaliseKeys(keys("model.model.a", "model.model.b"), { expected: new Set(own) }))).toEqual({ "model.a": 0, "model.b": 1 });
    });
    it("changes nothing where none of them is found", () => {
      expect(normaliseKeys(keys("model.x", "y"), { expected }).names.toSorted()).toEqual(["model.x", "y"]);
    });
    it("guesses nothing where two prefixes fit equally", () => {
      const weights = keys("model.a", "model.b", "ema.ema_model.a", "ema.ema_model.b");
      expect(() => normaliseKeys(weights, { expected })).toThrow(WeightsError);
      expect(() => normaliseKeys(weights, { expected })).toThrow(
        /^normaliseKeys: the model's keys must be found under one prefix, got 2 of 2 under each of "(model|ema\.ema_model)\." and "(model|ema\.ema_model)\."; choose with \{ prefix \}$/,
      );
    });
  });
});

describe("collectParams", () => {
  const w = Float32Array.from({ length: 6 }, (_, i) => i + 1);
  const good: Record<string, TensorSource> = {
    "ho_proj.weight": { shape: [3, 2], data: w },
    "ho_proj.bias": { dtype: "F16", shape: [3], data: Float32Array.of(0.5, -1, 2 ** -24) },
    "se_proj.weight": { dtype: "BF16", shape: [3, 2], data: w },
    other: { shape: [1], data: Int32Array.of(1) },
  };
  const required = { "ho_proj.weight": [3, 2], "se_proj.weight": [3, 2] };
  const replaced = (change: Record<string, TensorSource>): Weights => parseSafetensors(writeSafetensors({ ...good, ...change }));
  const without = (...names: string[]): Weights => Weights.from(Object.fromEntries(Object.entries(good).filter(([name]) => !names.includes(name))));

  it("gives the required parameters as floats, F32 without a copy, and no others", () => {
    const weights = replaced({});
    const params = collectParams(weights, required);
    expect(params).toEqual({ "ho_proj.weight": w, "se_proj.weight": w });
    expect(params["ho_proj.weight"]!.buffer).toBe(weights.get("ho_proj.weight").bytes.buffer);
  });

  it("gives the optional ones where they are", () => {
    const optional = { "ho_proj.bias": [3], "ag_proj.bias": [2] };
    expect(collectParams(replaced({}), required, { optional })).toEqual({
      "ho_proj.weight": w,
      "se_proj.weight": w,
      "ho_proj.bias": Float32Array.of(0.5, -1, 2 ** -24),
    });
  });

  it("takes plain arrays, scalars and empty tensors", () => {
    const plain = { s: { shape: [], data: Float32Array.of(3) }, e: { shape: [0, 2], data: new Float32Array(0) } };
    expect(collectParams(plain, { s: [], e: [0, 2] })).toEqual({ s: Float32Array.of(3), e: new Float32Array(0) });
    expect(collectParams(plain, {})).toEqual({});
  });

  it("finds the parameters of a trained model", async () => {
    const weights = parseSafetensors(await loadFixture("test/fixtures/golden/hlm_n32_d32_n32_b1.safetensors"));
    const shapes = Object.fromEntries([...weights].filter((t) => t.name.startsWith("layers.1.")).map((t) => [t.name, t.shape]));
    const params = collectParams(weights, shapes);
    expect(Object.keys(params)).toHaveLength(10);
    for (const [key, shape] of Object.entries(shapes)) expect(params[key]).toHaveLength(shape.reduce((a, b) => a * b, 1));
  });

  const refusals: [string, () => unknown, string][] = [
    [
      "one key missing",
      () => collectParams(without("se_proj.weight"), required),
      'weights must hold all keys of the model, got none of "se_proj.weight"',
    ],
    [
      "every missing key, in one message",
      () => collectParams(Weights.from({}), { a: [1], b: [2], c: [3] }),
      'weights must hold all the keys of the model, got none of "a", "b", "c"; there are no tensors at all',
    ],
    [
      "hundreds of missing keys",
      () => collectParams(keys("x"), Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`layers.${i}.weight`, [1]]))),
      '"layers.0.weight", "layers.1.weight"',
    ],
    [
      "hundreds of missing keys, the last, too",
      () => collectParams(keys("x"), Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`k${i}`, [1]]))),
      '"k299"; ',
    ],
    [
      "a key with a prefix",
      () => collectParams(keys("model.a", "model.b"), { a: [], b: [] }),
      '"a" (there is "model.a"), "b" (there is "model.b"); remove the prefix of the training code with normaliseKeys',
    ],
    [
      "a key in another place",
      () => collectParams(keys("grad.a.weight"), { "a.weight": [] }),
      '"a.weight" (there is "grad.a.weight"); check the configuration',
    ],
    ["a misspelt key", () => collectParams(keys("ho_prok.weight"), { "ho_proj.weight": [] }), '"ho_proj.weight" (there is "ho_prok.weight")'],
    ["other letter case and separators", () => collectParams(keys("hoProj-Weight"), { "ho_proj.weight": [] }), '(there is "hoProj-Weight")'],
    [
      "the nearest of several",
      () => collectParams(keys("layers.1.bias", "layers.1.weighs", "layers.9.weighs"), { "layers.1.weight": [] }),
      '(there is "layers.1.weighs")',
    ],
    [
      "a wrong shape",
      () => collectParams(replaced({}), { "ho_proj.weight": [2, 3] }),
      'weights must have the shapes of the model, got "ho_proj.weight" [3, 2] instead of [2, 3]; check the configuration',
    ],
    ["a wrong rank", () => collectParams(replaced({}), { "ho_proj.weight": [6] }), '"ho_proj.weight" [3, 2] instead of [6]'],
    ["an axis too few", () => collectParams(replaced({}), { "ho_proj.weight": [3, 2, 1] }), '"ho_proj.weight" [3, 2] instead of [3, 2, 1]'],
    [
      "every wrong shape",
      () => collectParams(replaced({}), { "ho_proj.weight": [3, 3], "se_proj.weight": [3] }),
      '"ho_proj.weight" [3, 2] instead of [3, 3], "se_proj.weight" [3, 2] instead of [3]',
    ],
    [
      "a wrong shape of an optional one",
      () => collectParams(replaced({}), required, { optional: { "ho_proj.bias": [4] } }),
      '"ho_proj.bias" [3] instead of [4]',
    ],
    [
      "integers",
      () => collectParams(replaced({}), { other: [1] }),
      'tensor "other" must have the dtype F32, F16 or BF16, got I32; convert the checkpoint',
    ],
    [
      "NaN",
      () => collectParams(replaced({ "ho_proj.weight": { shape: [3, 2], data: Float32Array.of(1, 2, 3, Number.NaN, 5, Number.NaN) } }), required),
      'tensor "ho_proj.weight" must have only finite values, got NaN at index 3, [1, 1]; ',
    ],
    [
      "infinity in the last place",
      () =>
        collectParams(replaced({ "ho_proj.weight": { shape: [3, 2], data: Float32Array.of(1, 2, 3, 4, 5, Number.POSITIVE_INFINITY) } }), required),
      "got Infinity at index 5, [2, 1]; ",
    ],
    [
      "-infinity in the first, F16",
      () => collectParams(replaced({ "se_proj.weight": { dtype: "F16", shape: [3, 2], data: Uint16Array.of(0xfc00, 0, 0, 0, 0, 0) } }), required),
      'tensor "se_proj.weight" must have only finite values, got -Infinity at index 0, [0, 0]; ',
    ],
    [
      "NaN in an optional one, BF16",
      () =>
        collectParams(replaced({ "ho_proj.bias": { dtype: "BF16", shape: [3], data: Uint16Array.of(0, 0x7f81, 0) } }), required, {
          optional: { "ho_proj.bias": [3] },
        }),
      'tensor "ho_proj.bias" must have only finite values, got NaN at index 1, [1]; ',
    ],
    ["a scalar NaN", () => collectParams({ s: { shape: [], data: Float32Array.of(Number.NaN) } }, { s: [] }), "got NaN at index 0, []; "],
    [
      "other keys, if strict",
      () => collectParams(replaced({}), required, { strict: true }),
      'weights must hold only the 2 keys of the model, got also "other", "ho_proj.bias"; check the configuration',
    ],
    [
      "plain arrays that do not fit their shape",
      () => collectParams({ a: { shape: [2], data: w } }, { a: [2] }),
      'the data of tensor "a" must have 2 values for the shape [2], got Float32Array of length 6',
    ],
  ];

  it.each(refusals)("refuses %s", (_name, collect, fragment) => {
    expect(collect).toThrow(WeightsError);
    expect(collect).toThrow(fragment);
    expect(collect).toThrow(/^collectParams: /);
  });

  it("names the caller it works for", () => {
    expect(() => collectParams(without("se_proj.weight"), required, { where: "HomLayer.create" })).toThrow(/^HomLayer\.create: weights must hold/);
  });

  it("suggests nothing far-fetched", () => {
    expect(() => collectParams(keys("se_proj.weight", "ag_proj.bias", "b"), { a: [], "token_emb.weight": [] })).toThrow(
      'got none of "a", "token_emb.weight"; check the configuration',
    );
  });

  it("looks at no values of tensors that are not asked for", () => {
    const odd = replaced({ other: { shape: [1], data: Float32Array.of(Number.NaN) } });
    expect(Object.keys(collectParams(odd, required))).toEqual(["ho_proj.weight", "se_proj.weight"]);
  });

  it("is content with a strict file that holds just the model", () => {
    expect(Object.keys(collectParams(without("other"), required, { strict: true, optional: { "ho_proj.bias": [3] } }))).toHaveLength(3);
  });
});
