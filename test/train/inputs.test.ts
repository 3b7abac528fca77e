import { describe, expect, it } from "vitest";
import { checkTokens, groupRows, microBatch } from "../../src/train/inputs.ts";
import { checkTrainerOptions } from "../../src/train/options.ts";

const limits = { vocabSize: 9, contextLength: 4 };

describe("groupRows", () => {
  it("lists the rows of every key, in order", () => {
    const { order, starts, keys } = groupRows(Uint32Array.of(3, 0, 3, 5, 0, 3), 7);
    expect([...keys]).toEqual([0, 3, 5]);
    expect([...starts]).toEqual([0, 2, 5, 6]);
    expect([...order]).toEqual([1, 4, 0, 2, 5, 3]);
  });
  it("takes one key only, and every key", () => {
    expect(groupRows(Uint32Array.of(0, 0), 1)).toEqual({ order: Uint32Array.of(0, 1), starts: Uint32Array.of(0, 2), keys: Uint32Array.of(0) });
    expect([...groupRows(Uint32Array.of(2, 1, 0), 3).order]).toEqual([2, 1, 0]);
  });
});

describe("microBatch", () => {
  const tokens = Int32Array.of(1, 2, 3, 4, 5, 6, 7, 8, 0);

  it("shifts targets by one", () => {
    const micro = microBatch(checkTokens("f", tokens, 3, 0, limits), 1, 2, { vocabSize: 9 });
    expect([...micro.ids]).toEqual([4, 5, 7, 8]);
    expect([...micro.targets]).toEqual([5, 6, 8, 0]);
    expect(micro.positions).toEqual([0, 1]);
    expect([...micro.positionRows]).toEqual([0, 1, 0, 1]);
    expect([...micro.positionGroups.order]).toEqual([0, 2, 1, 3]);
  });

  it("computes each position once", () => {
    const checked = checkTokens("f", tokens, 3, Int32Array.of(4, 0, 3), limits);
    const micro = microBatch(checked, 0, 3, { vocabSize: 9 });
    expect(micro.positions).toEqual([0, 1, 3, 4, 5, ...new Array(59).fill(0)]);
    expect([...micro.positionGroups.keys]).toEqual([0, 1, 2, 3, 4]);
    expect([...micro.positionRows]).toEqual([3, 4, 0, 1, 2, 3]);
    expect(micro.batch * micro.length).toBe(6);
  });
});

it("has one position for all tokens of a model without positions", () => {
  const micro = microBatch(checkTokens("f", Int32Array.of(1, 2, 3, 4, 5, 6), 2, 7, limits), 0, 2, { vocabSize: 9, positions: false });
  expect(micro.positions).toEqual([0]);
  expect([...micro.positionRows]).toEqual([0, 0, 0, 0]);
});

describe("checkTokens", () => {
  const check = (tokens: unknown, batch: unknown = 1, offset: unknown = 0) => checkTokens("HlmTrainer.step", tokens, batch, offset, limits);
  it.each([
    [() => check([1, 2]), TypeError, "HlmTrainer.step: tokens must be an Int32Array, got [1, 2]"],
    [() => check(Int32Array.of(1, 2, 3), 2), RangeError, "HlmTrainer.step: tokens must have 2 rows of n + 1 >= 2 tokens, got 3 ids"],
    [() => check(Int32Array.of(1)), RangeError, "HlmTrainer.step: tokens must have 1 rows of n + 1 >= 2 tokens, got 1 ids"],
    [() => check(new Int32Array(6)), RangeError, "HlmTrainer.step: tokens must have at most contextLength = 4 inputs a row, got 5"],
    [() => check(Int32Array.of(1, 9)), RangeError, "HlmTrainer.step: tokens[1] must be a token id from 0 to 8, got 9"],
    [() => check(Int32Array.of(1, 2), 0), RangeError, "HlmTrainer.step: batch must be an integer >= 1, got 0"],
    [() => check(Int32Array.of(1, 2), 1, -1), RangeError, "HlmTrainer.step: posOffset must be an integer from 0 to 2147483647, got -1"],
    [() => check(Int32Array.of(1, 2), 1, Int32Array.of(1, 2)), RangeError, "HlmTrainer.step: posOffset must have 1 elements, one a batch row, got 2"],
    [() => check(Int32Array.of(1, 2), 1, "0"), TypeError, 'HlmTrainer.step: posOffset must be a number or an Int32Array, got "0"'],
  ])("refuses %#", (call, kind, message) => {
    expect(call).toThrow(kind);
    expect(call).toThrow(message);
  });
});

describe("trainer options", () => {
  it("have defaults", () => {
    expect(checkTrainerOptions("f", {})).toEqual({ lr: 1e-3, betas: [0.9, 0.99], eps: 1e-8, weightDecay: 0.1, clipNorm: 1, scratchBudget: 64 << 20 });
  });
  it.each([
    [{ lr: -1 }, "f: lr must be a finite number >= 0, got -1"],
    [{ lr: Number.NaN }, "f: lr must be a finite number >= 0, got NaN"],
    [{ betas: [0.9, 1] }, "f: betas[1] must be from 0 to less than 1, got 1"],
    [{ betas: [0.9] }, "f: betas must be an array of two numbers, got [0.9]"],
    [{ eps: 0 }, "f: eps must be greater than 0, got 0"],
    [{ clipNorm: 0 }, "f: clipNorm must be greater than 0, got 0; Infinity turns clipping off"],
    [{ weightDecay: Infinity }, "f: weightDecay must be a finite number >= 0, got Infinity"],
    [{ momentum: 1 }, 'got the unknown key "momentum"'],
  ])("refuse %j", (options, message) => {
    expect(() => checkTrainerOptions("f", options as never)).toThrow(message);
  });
});
