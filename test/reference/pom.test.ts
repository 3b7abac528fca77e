import { describe, expect, test } from "vitest";
import { type PomArguments, type PomShape, pomReference } from "../../src/reference/pom.ts";
import { PomStream } from "../../src/reference/pom_stream.ts";
import { expectClose } from "../support/compare.ts";
import { fullMask, goldenCases, loadGolden, pomGolden, pomStateGolden } from "../support/golden.ts";
import { REFERENCE_GOLDEN, REORDERED_F64 } from "../support/tolerances.ts";
import { normals, randomPomParams } from "./inputs.ts";

const relL2 = REFERENCE_GOLDEN;

describe("the float64 polynomial mixer gives the golden outputs", async () => {
  test.each(await goldenCases("pom", "pom_rope"))("$name", async (entry) => {
    const golden = await loadGolden(entry);
    const { shape: layer, params, args, expected, outputShape: shape, blind } = pomGolden(golden);
    expectClose(pomReference(layer, params, args), expected, { relL2, what: "y", shape });
    expect(blind.length > 0).toBe(entry.name.includes("dead"));
    if (args.mask && typeof args.mask === "object" && "blockCausal" in args.mask) {
      const mask = { full: fullMask(golden) };
      expectClose(pomReference(layer, params, { ...args, mask }), expected, { relL2, what: "y under the stored mask", shape });
    }
  });

  test.each(await goldenCases("pom_state"))("$name", async (entry) => {
    const { shape, params, batch, calls } = pomStateGolden(await loadGolden(entry));
    const stream = new PomStream(shape, params, { batch, counting: "calls" });
    for (const [i, { context, query, expected, mean, count }] of calls.entries()) {
      stream.append(context);
      expectClose(stream.mean(), mean, { relL2, what: `mean after call ${i}` });
      expect([...stream.count]).toEqual(new Array(batch).fill(count));
      expectClose(stream.query(query), expected, { relL2, what: `y of call ${i}` });
    }
  });
});

const SHAPES: readonly PomShape[] = [
  { dim: 6, degree: 3, expand: 2 },
  { dim: 4, degree: 2, expand: 2, nSelHeads: 4, rotary: "1d" },
  { dim: 8, degree: 4, expand: 1, nGroups: 2, rotary: "1d" },
  { dim: 8, degree: 2, expand: 2, nGroups: 4, nSelHeads: 4, rotary: "2d" },
];
const relL2F64 = REORDERED_F64;

function example(shape: PomShape, seed = 1) {
  const [batch, length] = [2, 13];
  const pairs = shape.rotary === "2d" ? Array.from({ length }, (_, i) => [Math.floor(i / 4), i % 4]).flat() : undefined;
  return {
    params: randomPomParams(seed, shape, true),
    x: normals(seed + 50, batch * length * shape.dim),
    args: { batch, queryLength: length, ...(pairs && { positions: pairs }) },
    pairs,
  };
}

describe.each(SHAPES.map((shape) => ({ name: JSON.stringify(shape), shape })))("identities, $name", ({ shape }) => {
  const { params, x, args, pairs } = example(shape);
  const { batch, queryLength: length } = args;

  test("a stream of steps is the causal layer, whatever its chunks", () => {
    const expected = pomReference(shape, params, { ...args, query: x, mask: "causal" });
    for (const chunks of [[13], [1, 5, 7], Array<number>(13).fill(1)]) {
      const stream = new PomStream(shape, params, { batch });
      let at = 0;
      for (const n of chunks) {
        const positions = pairs?.slice(2 * at, 2 * (at + n));
        const y = stream.step(cut(x, batch, at, n), { positions });
        expectClose(y, cut(expected, batch, at, n), { relL2: relL2F64, what: `chunk at ${at}` });
        at += n;
      }
      expect([...stream.count]).toEqual([13, 13]);
    }
  });

  test("masks that say the same give the same", () => {
    const run = (mask: PomArguments["mask"]) => pomReference(shape, params, { ...args, query: x, mask });
    const lower = Uint8Array.from({ length: length * length }, (_, i) => (i % length <= Math.floor(i / length) ? 1 : 0));
    expectClose(run({ full: lower }), run("causal"), { relL2: relL2F64, what: "full, causal" });
    const padding = Uint8Array.from({ length: batch * length }, (_, i) => (i % length < 5 ? 1 : 0));
    expectClose(run({ padding }), run({ lengths: [5, 5] }), { relL2: relL2F64, what: "padding, lengths" });
    expectClose(run({ blockCausal: 100 }), run(undefined), { relL2: relL2F64, what: "one block" });
  });

  test("a row that sees nothing is the bias", () => {
    const padding = Uint8Array.from({ length: batch * length }, (_, i) => (i < length ? 0 : 1));
    const y = pomReference(shape, params, { ...args, query: x, mask: { padding } });
    for (let t = 0; t < length; t++) expect(y.slice(t * shape.dim, (t + 1) * shape.dim)).toEqual(params["ag_proj.bias"]);
    const cancelled = Float64Array.from({ length: batch * length }, (_, i) => (i === 0 ? 1 : i === 1 ? -1 : i < length ? 0 : 1));
    const z = pomReference(shape, params, { ...args, query: x, mask: { padding: cancelled } });
    expect(z).toEqual(y);
  });
});

describe("what the parts stand for", () => {
  test("a grouped projection is a dense one with zeros", () => {
    const grouped: PomShape = { dim: 6, degree: 2, expand: 2, nGroups: 3, nSelHeads: 4 };
    const { params, x, args } = example(grouped);
    const po = new Float64Array(12 * 6);
    for (let o = 0; o < 12; o++) for (let i = 0; i < 2; i++) po[o * 6 + 2 * Math.floor(o / 4) + i] = params["po_proj.weight"]![2 * o + i]!;
    const dense = {
      "qc_proj.weight": Float64Array.of(...po, ...params["se_proj.weight"]!),
      se_bias: params["se_proj.bias"]!,
      po_coeff: params["po_coeff"]!,
      "ag_proj.weight": params["ag_proj.weight"]!,
      "ag_proj.bias": params["ag_proj.bias"]!,
    };
    const { "po_proj.bias": _, ...rest } = params;
    const expected = pomReference({ ...grouped, nGroups: 1 }, dense, { ...args, query: x });
    expectClose(pomReference(grouped, rest, { ...args, query: x }), expected, { relL2: relL2F64, what: "y" });
  });

  test.each(["1d", "2d"] as const)("computed angles are those of a table, %s", (rotary) => {
    const shape: PomShape = { dim: 8, degree: 2, expand: 2, nSelHeads: 4, rotary };
    const { params, x, args } = example(shape);
    const columns = rotary === "1d" ? 8 : 4;
    const table = (f: (a: number) => number) =>
      Float64Array.from({ length: 20 * columns }, (_, i) => f(Math.floor(i / columns) * 10_000 ** (-(i % columns) / columns)));
    const names = rotary === "1d" ? ["freqs"] : ["row", "col"];
    const tables = Object.fromEntries(
      names.flatMap((name) => [[`${name}_cos`, table(Math.cos)] as const, [`${name}_sin`, table(Math.sin)] as const]),
    );
    const expected = pomReference(shape, params, { ...args, query: x });
    expectClose(pomReference(shape, { ...params, ...tables }, { ...args, query: x }), expected, { relL2: relL2F64, what: "y" });
    const beyond = args.positions ? args.positions.map((p) => p + 20) : Array.from({ length: 13 }, (_, i) => i + 20);
    expect(() => pomReference(shape, { ...params, ...tables }, { ...args, query: x, positions: beyond })).toThrow(RangeError);
  });

  test.each([
    { rotary: "1d", delta: [7] },
    { rotary: "1d", delta: [-4] },
    { rotary: "2d", delta: [3, -2] },
  ] as const)("shifting a state by $delta moves its tokens, $rotary", ({ rotary, delta }) => {
    const shape: PomShape = { dim: 8, degree: 3, expand: 1, rotary };
    const { params, x, args } = example(shape);
    const positions = args.positions ?? Array.from({ length: 13 }, (_, i) => i);
    const axes = delta.length;
    const here = new PomStream(shape, params, { batch: 2 });
    here.append(x, { positions: positions.map((p) => p + 10) });
    here.shift(delta);
    const there = new PomStream(shape, params, { batch: 2 });
    there.append(x, { positions: positions.map((p, i) => p + 10 + delta[i % axes]!) });
    expectClose(here.sum, there.sum, { relL2: relL2F64, what: "sum" });
    expect(here.next[0]).toBe(there.next[0]);
  });
});

/** Tokens [at, at + n) of x [B, N, D]. */
function cut(x: Float64Array, batch: number, at: number, n: number): Float64Array {
  const dim = x.length / batch / 13;
  return Float64Array.from({ length: batch * n * dim }, (_, i) => x[(Math.floor(i / (n * dim)) * 13 + at) * dim + (i % (n * dim))]!);
}
