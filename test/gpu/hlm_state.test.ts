import { afterAll, describe, expect, it } from "vitest";
import { HomState, parseSafetensors, requestGpu, WeightsError, writeSafetensors } from "../../src/index.ts";
import { charVocabulary, Hlm, HlmState, hlmConfigOf } from "../../src/models/index.ts";
import { loadFixture } from "../support/fixtures.ts";
import { getDevice } from "../support/gpu.ts";

const gpu = await requestGpu({ device: await getDevice() });
const weights = parseSafetensors(await loadFixture("demo/public/checkpoints/hlm_shakespeare.safetensors"));
const model = await Hlm.create(gpu, hlmConfigOf(weights), weights);
const vocabulary = charVocabulary(weights);
afterAll(() => model.destroy());

/** The file with some of its parts changed. */
function changed(bytes: Uint8Array<ArrayBuffer>, change: (parts: { metadata: Record<string, string>; tensors: Map<string, Uint8Array> }) => void) {
  const file = parseSafetensors(bytes);
  const parts = { metadata: { ...file.metadata }, tensors: new Map([...file].map(({ name, bytes: data }) => [name, Uint8Array.from(data)])) };
  change(parts);
  const tensors = Object.fromEntries([...parts.tensors].map(([name, data]) => [name, { shape: [data.length], data }]));
  return writeSafetensors(tensors, parts.metadata);
}

async function logits(state: HlmState, text: string): Promise<Float32Array> {
  using result = model.step(state, vocabulary.encode(text));
  return result.read();
}

describe("HlmState.save and load", () => {
  it.each([undefined, 3])("go on as the state itself would, window %s", async (window) => {
    using state = model.createState({ batch: 2, ...(window !== undefined && { window }) });
    const text = "To be, or not";
    model.step(state, vocabulary.encode(text + text)).destroy();
    const bytes = await state.save({ metadata: { text } });
    using loaded = HlmState.load(gpu, bytes, { model });
    expect(loaded.position).toBe(text.length);
    expect(loaded.batch).toBe(2);
    expect(loaded.window).toBe(window);
    expect(loaded.bytes).toBe(state.bytes);
    expect(await loaded.save({ metadata: { text } })).toEqual(bytes);
    expect(parseSafetensors(bytes).metadata["text"]).toBe(text);
    const after = await logits(state, " to be");
    expect(await logits(loaded, " to be")).toEqual(after);
    expect(after.every((value) => value === after[0])).toBe(false);
  });

  it("refuse what is no saved state, and states that do not fit", async () => {
    using state = model.createState();
    model.step(state, vocabulary.encode("ROMEO:")).destroy();
    const bytes = await state.save();
    using windowed = model.createState({ window: 2 });
    const other = parseSafetensors(await windowed.save());
    const cases: [Uint8Array, RegExp][] = [
      [new Uint8Array(4), /./],
      [writeSafetensors({ "layers.0": { shape: [1], data: new Uint8Array(1) } }), /saved HlmState, got another safetensors file/],
      [changed(bytes, ({ metadata }) => Object.assign(metadata, { "homm-webgpu.hlm_state": "2" })), /version 2/],
      [changed(bytes, ({ metadata }) => Object.assign(metadata, { position: "-1" })), /position of at least 0, got "-1"/],
      [changed(bytes, ({ tensors }) => tensors.delete("layers.3")), /the model's 4 layers, got 3/],
      [changed(bytes, ({ tensors }) => tensors.set("extra", new Uint8Array(1)).delete("layers.2")), /must have layers.2/],
      [changed(bytes, ({ tensors }) => tensors.get("layers.1")!.fill(7, 40, 50)), /checksum/],
      [changed(bytes, ({ tensors }) => tensors.set("layers.2", other.get("layers.2").bytes)), /window undefined, as the first has, got 2 in layer 2/],
    ];
    for (const [file, message] of cases) {
      expect(() => HlmState.load(gpu, file, { model }), String(message)).toThrow(WeightsError);
      expect(() => HlmState.load(gpu, file, { model })).toThrow(message);
    }
    expect(() => HlmState.load(gpu, bytes, { model: { config: { ...model.config, order: 3 } } })).toThrow(/order must be the model's 3, got 2/);
    await expect(state.save({ metadata: { position: "7" } })).rejects.toThrow(TypeError);
    // A refused file has left nothing behind that the state could not go on with.
    expect(HomState.load(gpu, parseSafetensors(bytes).get("layers.0").bytes).count).toEqual([6]);
  });
});
