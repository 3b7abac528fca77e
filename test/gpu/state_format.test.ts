import { describe, expect, it } from "vitest";
import { HomLayer, HomState, requestGpu, Tensor, WeightsError } from "../../src/index.ts";
import { HOM_STATE } from "../../src/layers/hom_state.ts";
import { readState, writeState } from "../../src/layers/state_format.ts";
import { normals, randomParams } from "../reference/inputs.ts";
import { getDevice } from "../support/gpu.ts";

const gpu = await requestGpu({ device: await getDevice() });
const shape = { dim: 5, order: 2, orderExpand: 1 };
const params = Object.fromEntries(Object.entries(randomParams(1, shape)).map(([key, values]) => [key, Float32Array.from(values)]));
const layer = await HomLayer.create(gpu, shape, params);

async function saved(window?: number): Promise<Uint8Array<ArrayBuffer>> {
  using state = layer.createState({ batch: 2, window });
  using tokens = Tensor.from(gpu, Float32Array.from(normals(2, 2 * 9 * 5)), [2, 9, 5]);
  layer.append(state, tokens);
  return state.save();
}

const good = await saved();
const windowed = await saved(4);

/** The same bytes with the header changed and a checksum that is right. */
function withHeader(change: (header: Record<string, unknown>) => void): Uint8Array {
  const contents = readState("test", HOM_STATE, good);
  const header = { ...contents.header } as Record<string, unknown>;
  change(header);
  return writeState("HOMSTATE", { ...contents, header: header as never });
}

function withBytes(change: (bytes: Uint8Array) => void, of = good): Uint8Array {
  const bytes = of.slice();
  change(bytes);
  return bytes;
}

/** Sets a header text of one's own, padded to the same length, and mends the checksum by writing through the format. */
const set = (at: number, value: number) => withBytes((bytes) => bytes.set([value], at));

describe("HomState.load", () => {
  it("reads what save wrote, with and without a window", async () => {
    for (const bytes of [good, windowed]) {
      using state = HomState.load(gpu, bytes, { layer });
      expect(await state.save()).toEqual(bytes);
      using fromBuffer = HomState.load(gpu, bytes.buffer);
      expect(fromBuffer.count).toEqual(state.count);
    }
  });

  const corrupted: [string, Uint8Array, RegExp][] = [
    ["nothing", new Uint8Array(), /0 bytes/],
    ["a few bytes", good.slice(0, 10), /10 bytes/],
    ["the fixed part only", good.slice(0, 16), /16 bytes/],
    ["half of it", good.slice(0, good.length / 2), /checksum/],
    ["all but the last byte", good.slice(0, -1), /checksum/],
    ["all but the last four", good.slice(0, -4), /checksum/],
    ["a byte more", new Uint8Array([...good, 0]), /checksum/],
    ["another magic", set(0, 0x58), /no HOMSTATE/],
    ["a PNG", new Uint8Array(100).fill(0x89), /no HOMSTATE/],
    ["version 0", set(8, 0), /version 0/],
    ["version 2", set(8, 2), /version 2/],
    ["a header length of 0", withBytes((b) => new DataView(b.buffer).setUint32(12, 0, true)), /checksum/],
    ["a header length past the end", withBytes((b) => new DataView(b.buffer).setUint32(12, 1 << 19, true)), /header of 524288/],
    ["an absurd header length", withBytes((b) => new DataView(b.buffer).setUint32(12, 0xfffffffc, true)), /header of 4294967292/],
    ["an odd header length", withBytes((b) => new DataView(b.buffer).setUint32(12, 33, true)), /header of 33/],
    ["a flipped bit in the header", withBytes((b) => b.set([b[20]! ^ 1], 20)), /checksum/],
    ["a flipped bit in the sums", withBytes((b) => b.set([b[b.length - 40]! ^ 0x10], b.length - 40)), /checksum/],
    ["a flipped bit in the checksum", withBytes((b) => b.set([b[b.length - 1]! ^ 0x80], b.length - 1)), /checksum/],
    ["a flipped bit in the tokens of a window", withBytes((b) => b.set([b[b.length - 8]! ^ 1], b.length - 8), windowed), /checksum/],
    ["a dim of 0", withHeader((h) => Object.assign(h, { dim: 0 })), /dim 0/],
    ["a wrong dim", withHeader((h) => Object.assign(h, { dim: 6 })), /header asks for/],
    ["a dim of text", withHeader((h) => Object.assign(h, { dim: "5" })), /dim "5"/],
    ["no dim", withHeader((h) => delete h["dim"]), /dim undefined/],
    ["an order of 9", withHeader((h) => Object.assign(h, { order: 9 })), /order 9/],
    ["half an orderExpand", withHeader((h) => Object.assign(h, { orderExpand: 0.5 })), /orderExpand 0.5/],
    ["a wrong batch", withHeader((h) => Object.assign(h, { batch: 3 })), /count/],
    ["a negative count", withHeader((h) => Object.assign(h, { count: [-1, 9] })), /count/],
    ["a count of text", withHeader((h) => Object.assign(h, { count: "99" })), /count/],
    ["another number of levels", withHeader((h) => Object.assign(h, { levels: 5 })), /header asks for/],
    ["an unknown activation", withHeader((h) => Object.assign(h, { activation: "relu" })), /activation/],
    ["an activation of a number", withHeader((h) => Object.assign(h, { activation: 1 })), /activation/],
    ["a negative number of additions", withHeader((h) => Object.assign(h, { additions: -1 })), /additions/],
    ["a window of 0", withHeader((h) => Object.assign(h, { window: 0 })), /window/],
    ["more tokens than the window", withHeader((h) => Object.assign(h, { window: 2, held: 3 })), /3 tokens/],
    ["tokens without a window", withHeader((h) => Object.assign(h, { held: 1 })), /1 tokens/],
    [
      "a NaN among the sums",
      (() => {
        const contents = readState("test", HOM_STATE, good);
        contents.sums[3] = Number.NaN;
        return writeState("HOMSTATE", contents);
      })(),
      /NaN at element 3/,
    ],
  ];
  it.each(corrupted)("refuses %s", (_, bytes, message) => {
    expect(() => HomState.load(gpu, bytes)).toThrow(WeightsError);
    expect(() => HomState.load(gpu, bytes)).toThrow(message);
  });

  it("refuses the state of another layer, when it is told the layer", async () => {
    const other = { dim: 5, order: 1, orderExpand: 2 };
    const own = Object.fromEntries(Object.entries(randomParams(1, other)).map(([key, values]) => [key, Float32Array.from(values)]));
    using wrong = await HomLayer.create(gpu, other, own);
    expect(() => HomState.load(gpu, good, { layer: wrong })).toThrow(WeightsError);
    using state = HomState.load(gpu, good);
    using tokens = Tensor.from(gpu, new Float32Array(2 * 5), [2, 1, 5]);
    expect(() => wrong.step(state, tokens)).toThrow(/order must be the layer's 1, got 2/);
    expect(state.count).toEqual([9, 9]);
  });

  it("takes bytes only", () => {
    expect(() => HomState.load(gpu, "HOMSTATE" as never)).toThrow(TypeError);
  });
});
