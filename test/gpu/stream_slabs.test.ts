import { afterAll, describe, expect, it } from "vitest";
import { type Gpu, HomLayer, requestGpu } from "../../src/index.ts";
import { minimumScratch } from "../../src/layers/hom_plan.ts";
import { HomStream } from "../../src/reference/stream.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { borrow, chooser, expectSameBits, layerParams, normals32, poisonScratch } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const watch = instrument(device);
afterAll(() => watch.restore());
const TILE = { tile: "8x4" } as const;
const gpus: Gpu[] = [
  await requestGpu({ device, tuning: { ...TILE, blockTokens: 8, prefixBlockTokens: 8, fusedSelectMaxDim: 0, decodeLanes: 1 } }),
  await requestGpu({ device, tuning: { ...TILE, blockTokens: 8, prefixBlockTokens: 32, fusedSelectMaxDim: 256, decodeLanes: 4 } }),
  await requestGpu({ device, tuning: { ...TILE, blockTokens: 64, prefixBlockTokens: 32, fusedSelectMaxDim: 0, decodeLanes: 16 } }),
  await requestGpu({ device, tuning: { ...TILE, blockTokens: 8, prefixBlockTokens: 8, fusedSelectMaxDim: 0, decodeLanes: 64 } }),
];
const adapter = gpus[0]!.info.description;
const LENGTHS = [1, 2, 7, 64, 129, 257, 1000] as const;
const OFFSETS = [0, 4, 16, 256, 772] as const;

type Call = "append" | "append lengths" | "append packed" | "query" | "query packed" | "step";
const CALLS: readonly Call[] = ["append", "append lengths", "append packed", "query", "query packed", "step", "step"];

interface Script {
  readonly id: string;
  readonly seed: number;
  readonly gpu: Gpu;
  readonly dim: number;
  readonly order: number;
  readonly batch: number;
  readonly budget: number;
  readonly smallBindings: boolean;
  readonly calls: readonly { readonly call: Call; readonly length: number }[];
}

/** `lanes`: the script on the GPU with the most lanes instead. */
function draw(seed: number, lanes?: 64): Script {
  const pick = chooser(seed);
  const which = pick.integer(0, 2);
  const dim = pick.of([3, 12]);
  const [order, batch] = [pick.integer(1, 4), pick.integer(1, 5)];
  const budget = pick.of([1, 1, 1.4, 1000]);
  const smallBindings = pick.chance(0.3);
  const calls = Array.from({ length: 6 }, () => ({ call: pick.of(CALLS), length: pick.of(LENGTHS) }));
  const words = calls.map(({ call, length }) => `${call} ${length}`).join(", ");
  const limits = smallBindings ? ", small bindings" : "";
  return {
    id: `k${order} D${dim} B${batch}, tuning ${lanes ? 3 : which}, budget x${budget}${limits}: ${words}`,
    seed,
    gpu: gpus[lanes ? 3 : which]!,
    dim,
    order,
    batch,
    budget,
    smallBindings,
    calls,
  };
}

/** What a script yields on a GPU, in order; `disturb` runs before each call. */
async function play(s: Script, disturb: () => void, check?: (y: Float32Array, what: string, inputs: Inputs) => void): Promise<Float32Array[]> {
  const shape = { dim: s.dim, order: s.order, orderExpand: 1 };
  const least = minimumScratch({ ...shape, activation: "gelu", scratchBudget: 1 }, s.gpu.tuning);
  const limits = s.gpu.limits;
  const weights = (4 * Math.ceil(s.dim / 4) + 1) * 2 * s.order * Math.ceil(s.dim / 4) * 16;
  if (s.smallBindings)
    Object.defineProperty(s.gpu, "limits", { value: { ...limits, maxStorageBufferBindingSize: 256 + 2 * weights }, configurable: true });
  const outputs: Float32Array[] = [];
  try {
    using layer = await HomLayer.create(s.gpu, { ...shape, scratchBudget: Math.ceil(least * s.budget) }, layerParams(s.seed, shape));
    using state = layer.createState({ batch: s.batch });
    const pick = chooser(s.seed + 1);
    for (const [i, { call, length }] of s.calls.entries()) {
      const packed = call.endsWith("packed");
      const tensorShape = packed ? [1, length, s.dim] : [s.batch, length, s.dim];
      const data = normals32(s.seed + 100 + i, tensorShape[0]! * length * s.dim);
      const x = borrow(s.gpu, tensorShape, pick.of(OFFSETS), data);
      const out = borrow(s.gpu, tensorShape, pick.of(OFFSETS));
      const lengths = Uint32Array.from({ length: s.batch }, () => pick.of([0, length, pick.integer(0, length)]));
      const cuSeqlens = Uint32Array.from([0, ...Array.from({ length: s.batch - 1 }, () => pick.integer(0, length)), length]).sort();
      disturb();
      if (call === "append") layer.append(state, x.tensor);
      if (call === "append lengths") layer.append(state, x.tensor, { lengths });
      if (call === "append packed") layer.append(state, x.tensor, { cuSeqlens });
      if (call === "query") layer.query(state, x.tensor, { out: out.tensor });
      if (call === "query packed") layer.query(state, x.tensor, { out: out.tensor, cuSeqlens });
      if (call === "step") layer.step(state, x.tensor, { out: out.tensor });
      const y = call.startsWith("append") ? new Float32Array() : await out.readInside();
      outputs.push(y);
      check?.(y, `${call} ${length}, call ${i}`, { call, data, lengths, cuSeqlens });
      x.destroy();
      out.destroy();
    }
    outputs.push(Float32Array.from(state.count));
  } finally {
    Object.defineProperty(s.gpu, "limits", { value: limits, configurable: true });
  }
  return outputs;
}

interface Inputs {
  readonly call: Call;
  readonly data: Float32Array;
  readonly lengths: Uint32Array;
  readonly cuSeqlens: Uint32Array;
}

describe("streams in slabs, chunks and small bindings", () => {
  const seeds = Array.from({ length: 40 }, (_, i) => 1000 + i);
  const steps = seeds.map((seed) => draw(seed, 64)).filter(({ calls }) => calls.some(({ call, length }) => call === "step" && length === 1));
  const scripts = [...seeds.map((seed) => draw(seed)), ...steps];
  it.each(scripts.map((s) => [s.id, s] as const))("%s", async (_, s) => {
    const shape = { dim: s.dim, order: s.order, orderExpand: 1 };
    const params = layerParams(s.seed, shape) as unknown as ConstructorParameters<typeof HomStream>[1];
    // One reference stream a batch row, so that packed rows are simple.
    const rows = Array.from({ length: s.batch }, () => new HomStream(shape, params));
    const first = await play(
      s,
      () => {},
      (y, what, { call, data, lengths, cuSeqlens }) => {
        const packed = call.endsWith("packed");
        const length = packed ? 0 : data.length / s.batch / s.dim;
        const parts = rows.flatMap((row, b) => {
          const [from, to] = packed ? [cuSeqlens[b]!, cuSeqlens[b + 1]!] : [b * length, (b + 1) * length];
          const tokens = data.subarray(from * s.dim, (call === "append lengths" ? from + lengths[b]! : to) * s.dim);
          if (call.startsWith("append")) {
            if (tokens.length > 0) row.append(tokens);
            return [];
          }
          if (tokens.length === 0) return [];
          return [...(call === "step" ? row.step(tokens) : row.query(tokens))];
        });
        if (!call.startsWith("append")) expectClose(y, parts, { relL2: LAYER_F32, what, adapter });
      },
    );
    expect([...first.at(-1)!]).toEqual(rows.map(({ count }) => count[0]));
    const second = await play(s, () => poisonScratch(device, watch.live(/^hom\.scratch\./)));
    second.forEach((y, i) => {
      expectSameBits(y, first[i]!, `call ${i} on other scratch memory`);
    });
  });
});
