import { afterAll, describe, expect, it } from "vitest";
import { HomLayer, type HomState, requestGpu, Tensor } from "../../src/index.ts";
import { HomStream } from "../../src/reference/index.ts";
import { normals, randomParams } from "../reference/inputs.ts";
import { expectClose } from "../support/compare.ts";
import { createDevice, getDevice } from "../support/gpu.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });
const shape = { dim: 8, order: 2, orderExpand: 1 };
const params = Object.fromEntries(Object.entries(randomParams(1, shape)).map(([key, values]) => [key, Float32Array.from(values)]));
const layer = await HomLayer.create(gpu, shape, params);
const other = await HomLayer.create(gpu, { ...shape, activation: "tanh" }, params);
const foreign = await requestGpu({ device: await createDevice() });
const foreignLayer = await HomLayer.create(foreign, shape, params);
afterAll(() => foreign.device.destroy());

const tensor = (...dims: number[]) => {
  const size = dims.reduce((a, b) => a * b, 1);
  return Tensor.from(gpu, Float32Array.from(normals(size, size)), dims);
};
const two = tensor(2, 5, 8);
const packed = tensor(1, 5, 8);
const one = tensor(1, 5, 8);
const dead = tensor(2, 5, 8);
dead.destroy();
const deadState = layer.createState({ batch: 2 });
deadState.destroy();
const abroad = Tensor.from(foreign, new Float32Array(80), [2, 5, 8]);

/** Everything is refused for this state, which has seen two tokens a row. */
const state = layer.createState({ batch: 2 });
const seen = tensor(2, 2, 8);
layer.append(state, seen);
const window = layer.createState({ batch: 2, window: 3 });
const more = layer.createState({ batch: 2 });
layer.append(more, two);
const single = layer.createState();

const refused: [string, () => unknown, ErrorConstructor, RegExp][] = [
  ["a batch of 0", () => layer.createState({ batch: 0 }), RangeError, /createState: batch must be an integer from 1 to \d+, got 0/],
  ["half a window", () => layer.createState({ window: 0.5 }), RangeError, /createState: window must be .* got 0.5/],
  ["an unknown option", () => layer.createState({ size: 3 } as never), TypeError, /the unknown key "size"/],
  ["no state", () => layer.append({} as HomState, two), TypeError, /append: state must be a HomState/],
  ["a destroyed state", () => layer.append(deadState, two), TypeError, /state must be alive/],
  ["the state of another activation", () => other.append(state, two), RangeError, /activation must be the layer's tanh, got "gelu"/],
  ["a state of another device", () => foreignLayer.query(state, abroad), TypeError, /state must be on the layer's device/],
  ["a tensor of another device", () => layer.append(state, abroad), TypeError, /context must be on the layer's device/],
  ["a destroyed tensor", () => layer.step(state, dead), TypeError, /tokens must be alive/],
  ["an array", () => layer.step(state, new Float32Array(80) as never), TypeError, /tokens must be a Tensor/],
  ["another batch", () => layer.step(state, one), RangeError, /step: tokens must have shape \[2, n, 8\], got \[1, 5, 8\]/],
  ["another width", () => layer.query(state, tensor(2, 5, 4)), RangeError, /query: query must have shape \[2, n, 8\], got \[2, 5, 4\]/],
  ["another rank", () => layer.append(state, tensor(10, 8)), RangeError, /context must have shape \[2, n, 8\], got \[10, 8\]/],
  ["lengths of another type", () => layer.append(state, two, { lengths: [1, 2] as never }), TypeError, /lengths must be a Uint32Array/],
  ["too few lengths", () => layer.append(state, two, { lengths: Uint32Array.of(1) }), RangeError, /lengths must have 2 elements/],
  [
    "a length past the end",
    () => layer.append(state, two, { lengths: Uint32Array.of(1, 6) }),
    RangeError,
    /lengths\[1\] must be at most .* 5, got 6/,
  ],
  [
    "lengths and cuSeqlens",
    () => layer.append(state, packed, { lengths: Uint32Array.of(1, 1), cuSeqlens: Uint32Array.of(0, 2, 5) }),
    TypeError,
    /got both/,
  ],
  [
    "cuSeqlens for another batch",
    () => layer.append(state, packed, { cuSeqlens: Uint32Array.of(0, 5) }),
    RangeError,
    /have 3 elements for 2 sequences/,
  ],
  [
    "cuSeqlens that end early",
    () => layer.query(state, packed, { cuSeqlens: Uint32Array.of(0, 2, 4) }),
    RangeError,
    /be the total of 5 tokens, got 4/,
  ],
  [
    "cuSeqlens that go back",
    () => layer.append(state, packed, { cuSeqlens: Uint32Array.of(0, 6, 5) }),
    RangeError,
    /cuSeqlens\[2\] must be at least/,
  ],
  ["an output of another shape", () => layer.step(state, two, { out: one }), RangeError, /out must have shape \[2, 5, 8\]/],
  ["the input as the output", () => layer.step(state, two, { out: two }), TypeError, /out must be in a buffer of its own, got the buffer of input/],
  [
    "ragged rows in a window",
    () => layer.append(window, two, { lengths: Uint32Array.of(1, 1) }),
    TypeError,
    /be empty for a state with a window, got lengths/,
  ],
  ["merging nothing", () => state.merge({} as HomState), TypeError, /merge: other must be a HomState/],
  ["merging itself", () => state.merge(state), TypeError, /other must be another state/],
  ["merging another batch", () => state.merge(single), RangeError, /other must have batch 2, got batch 1/],
  ["merging a window", () => state.merge(window), TypeError, /have no window, got a window of 3 tokens/],
  ["scaling a window", () => window.scale(0.5), TypeError, /have no window/],
  ["subtracting more than was seen", () => state.subtract(more), RangeError, /have seen at most the 2 tokens .* got 5/],
  ["a negative scale", () => state.scale(-1), RangeError, /gamma must be a finite number >= 0, got -1/],
  ["a scale of text", () => state.scale("2" as never), TypeError, /gamma must be a number/],
];

describe("streams refuse", () => {
  it.each(refused)("%s, and nothing has changed", async (_, call, error, message) => {
    expect(call).toThrow(error);
    expect(call).toThrow(message);
    expect(state.count).toEqual([2, 2]);
    expect(window.count).toEqual([0, 0]);
  });

  it("and still compute afterwards", async () => {
    const twin = new HomStream(shape, params as never, { batch: 2 });
    twin.append(await seen.read());
    using y = layer.step(state, two);
    expectClose(await y.read(), twin.step(await two.read()), { relL2: LAYER_F32, what: "y", adapter: gpu.info.description });
    window.destroy();
    expect(() => layer.append(window, two)).toThrow(/state must be alive, got a destroyed state/);
  });
});
