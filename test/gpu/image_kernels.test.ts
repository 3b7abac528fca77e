import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { planAddRows } from "../../src/ops/add_rows.ts";
import { planModulate } from "../../src/ops/modulate.ts";
import { planPatchify } from "../../src/ops/patchify.ts";
import { planUnpatchify } from "../../src/ops/unpatchify.ts";
import { silu } from "../../src/reference/activations.ts";
import { addRows } from "../../src/reference/add_rows.ts";
import { modulate } from "../../src/reference/dih.ts";
import { patchify, unpatchify } from "../../src/reference/images.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { expectSameBits, normals32 } from "../support/hom.ts";
import { runSteps, slotOf } from "../support/steps.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });
const adapter = gpu.info.description;

describe("patchify and unpatchify", () => {
  it.each([
    { batch: 1, channels: 1, height: 1, width: 1, patch: 1 },
    { batch: 2, channels: 3, height: 7, width: 9, patch: 3 },
    { batch: 3, channels: 4, height: 10, width: 6, patch: 2 },
    { batch: 1, channels: 3, height: 65, width: 33, patch: 8 },
    { batch: 2, channels: 5, height: 12, width: 12, patch: 12 },
  ])("$batch images [$channels, $height, $width] in patches of $patch", async (sizes) => {
    const { batch, channels, height, width } = sizes;
    const maxWorkgroups = 3;
    // The image lies 5 numbers into its buffer.
    const offset = 5;
    const image = normals32(1, offset + batch * channels * height * width);
    const rows = patchify(image.subarray(offset), sizes);
    const place = { buffer: "image", byteOffset: offset * 4 };
    const apart = planPatchify({ ...sizes, image: place, rows: slotOf("rows", rows.length), maxWorkgroups });
    const cut = await runSteps(gpu, [apart], { image, rows: rows.length });
    expectSameBits(cut.rows, Float32Array.from(rows), "rows");
    const patches = normals32(2, rows.length);
    for (const channelsLast of [true, false]) {
      const together = planUnpatchify({ ...sizes, rows: slotOf("rows", rows.length), image: place, channelsLast, maxWorkgroups });
      const put = await runSteps(gpu, [together], { rows: patches, image: image.length });
      expectSameBits(put.image.subarray(offset), Float32Array.from(unpatchify(patches, sizes, channelsLast)), "image");
      expect([...put.image.subarray(0, offset)].every(Number.isNaN), "before the image").toBe(true);
    }
    const back = planPatchify({ ...sizes, image: place, rows: slotOf("rows", rows.length), channelsLast: true, maxWorkgroups });
    const turned = await runSteps(gpu, [back], { image, rows: rows.length });
    expectSameBits(turned.rows, Float32Array.from(patchify(image.subarray(offset), sizes, true)), "channels last");
  });
});

describe("modulate", () => {
  it.each([
    { dim: 1, batch: 2, tokens: 3, perToken: true },
    { dim: 5, batch: 3, tokens: 7, perToken: false },
    { dim: 63, batch: 1, tokens: 65, perToken: true },
    { dim: 64, batch: 2, tokens: 1, perToken: false },
    { dim: 65, batch: 2, tokens: 9, perToken: true },
    { dim: 1000, batch: 1, tokens: 3, perToken: false },
  ])("rows of $dim, $batch x $tokens, by token $perToken", async ({ dim, batch, tokens, perToken }) => {
    const parts = 3;
    const x = normals32(1, batch * tokens * dim).map((value, i) => value + 3 + (i % 7));
    const m = normals32(2, (perToken ? batch * tokens : batch) * parts * dim);
    const rowOf = (row: number) => (perToken ? row : Math.floor(row / tokens));
    const part = (k: number) => (row: number, c: number) => m[(rowOf(row) * parts + k) * dim + c]!;
    const expected = modulate(x, part(2), part(0), dim);
    const [mBatch, mToken] = perToken ? [tokens * parts * dim, parts * dim] : [parts * dim, 0];
    const at = { scaleAt: 2 * dim, shiftAt: 0, mBatch, mToken };
    const slots = { x: slotOf("x", x.length), m: slotOf("m", m.length), y: slotOf("y", x.length) };
    const { y } = await runSteps(gpu, [planModulate({ ...slots, ...at, batch, tokens, dim, maxWorkgroups: 4 })], { x, m, y: x.length });
    expectClose(y, expected, { relL2: LAYER_F32, what: "y", adapter });
  });
});

describe("add_rows", () => {
  const sizes = { batch: 3, tokens: 5, dim: 7 };
  const { batch, tokens, dim } = sizes;
  const size = batch * tokens * dim;
  const [a, b, g] = [normals32(1, size), normals32(2, size + dim), normals32(3, size)];
  const whole = (buffer: string, at = 0) => ({ slot: slotOf(buffer, size + dim), at, batch: tokens * dim, token: dim });
  const full = (values: Float32Array) => (r: number, t: number, c: number) => values[(r * tokens + t) * dim + c]!;

  it("adds, gates, activates and clamps", async () => {
    const step = planAddRows({
      ...sizes,
      a: whole("a"),
      b: whole("b"),
      g: whole("g"),
      y: whole("y"),
      activation: "silu",
      limit: 1.5,
      maxWorkgroups: 1,
    });
    const { y } = await runSteps(gpu, [step], { a: pad(a), b, g: pad(g), y: size + dim });
    const expected = addRows({ a: full(a), b: full(b), g: full(g) }, sizes, { act: silu, limit: 1.5 });
    expectClose(y.subarray(0, size), expected, { relL2: LAYER_F32, what: "y", adapter });
    expect(Math.max(...y.subarray(0, size))).toBe(1.5);
  });

  it("takes rows by batch row or by token, from anywhere", async () => {
    const step = planAddRows({
      ...sizes,
      a: { ...whole("a"), batch: 0 },
      b: { ...whole("b", dim), token: 0 },
      y: { ...whole("y"), at: 2, batch: tokens * dim, token: dim },
      maxWorkgroups: 65_535,
    });
    const { y } = await runSteps(gpu, [step], { a: pad(a), b, y: size + dim });
    const expected = addRows({ a: (_, t, c) => a[t * dim + c]!, b: (r, _, c) => b[dim + r * tokens * dim + c]! }, sizes);
    expectClose(y.subarray(2, 2 + size), expected, { relL2: LAYER_F32, what: "y", adapter });
    expect([y[0], y[1], y[2 + size]].every(Number.isNaN), "beside the rows").toBe(true);
  });

  it("copies, bit by bit", async () => {
    const { y } = await runSteps(gpu, [planAddRows({ ...sizes, a: whole("a"), y: whole("y"), maxWorkgroups: 2 })], { a: pad(a), y: size + dim });
    expectSameBits(y.subarray(0, size), a, "y");
  });

  function pad(values: Float32Array): Float32Array<ArrayBuffer> {
    const padded = new Float32Array(size + dim);
    padded.set(values);
    return padded;
  }
});
