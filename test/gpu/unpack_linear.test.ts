import { expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { packLinear } from "../../src/layers/params.ts";
import { planUnpackLinear } from "../../src/ops/unpack_linear.ts";
import { unpackLinear } from "../../src/reference/unpack_linear.ts";
import { getDevice } from "../support/gpu.ts";
import { normals32 } from "../support/hom.ts";
import { runSteps, slotOf } from "../support/steps.ts";

const gpu = await requestGpu({ device: await getDevice() });

it.each([
  { inner: { count: 1, width: 1 }, outer: { count: 1, width: 1 }, maxWorkgroups: 65_535 },
  { inner: { count: 1, width: 63 }, outer: { count: 3, width: 5 }, maxWorkgroups: 65_535 },
  { inner: { count: 2, width: 10 }, outer: { count: 1, width: 257 }, maxWorkgroups: 3 },
  { inner: { count: 8, width: 4 }, outer: { count: 2, width: 64 }, maxWorkgroups: 65_535 },
])("$inner.count x $inner.width inputs, $outer.count x $outer.width outputs beside others", async ({ inner, outer, maxWorkgroups }) => {
  const [rows, columns] = [inner.count * inner.width, outer.count * outer.width];
  const [weight, bias] = [normals32(1, rows * columns), normals32(2, columns)];
  const others = { weight: normals32(3, rows * 6), bias: normals32(4, 6), outer: { count: 2, width: 3 } };
  const packed = packLinear([others, { weight, bias, outer }, others], inner);
  const stride = packed.length / (inner.count * Math.ceil(inner.width / 4) * 4 + 1);
  const sizes = { stride, firstColumn: 8, inner, outer };
  const twin = unpackLinear(packed, sizes);
  expect([...twin.weight]).toEqual([...weight]);
  for (const hasBias of [true, false]) {
    const step = planUnpackLinear({
      ...sizes,
      packed: slotOf("packed", packed.length),
      weight: slotOf("weight", weight.length),
      bias: slotOf("bias", bias.length),
      hasBias,
      maxWorkgroups,
    });
    const result = await runSteps(gpu, [step], { packed, weight: weight.length, bias: bias.length });
    expect(result.weight).toEqual(weight);
    if (hasBias) expect(result.bias).toEqual(bias);
    else expect(result.bias.every((value) => Number.isNaN(value))).toBe(true);
  }
});

it("a part of the channels, to a part of the weight", async () => {
  const [inner, outer] = [
    { count: 2, width: 5 },
    { count: 3, width: 6 },
  ];
  const packed = packLinear([{ weight: normals32(1, 180), bias: normals32(2, 18), outer }], inner);
  const sizes = { stride: 24, firstColumn: 0, inner, outer, inputs: [3, 4], outputs: [5, 9] } as const;
  const twin = unpackLinear(packed, sizes);
  expect([...twin.weight.slice(0, 4)]).toEqual([3, 4, 8, 9].map((row) => packed[row * 24 + 5]));
  const step = planUnpackLinear({
    ...sizes,
    packed: slotOf("packed", packed.length),
    weight: slotOf("weight", 50),
    weightFirst: 7,
    bias: slotOf("bias", 18),
    hasBias: true,
    maxWorkgroups: 65_535,
  });
  const result = await runSteps(gpu, [step], { packed, weight: 50, bias: 18 });
  const only = (values: Float64Array, first: number, length: number) =>
    Array.from({ length }, (_, i) => (i >= first && i < first + values.length ? values[i - first] : Number.NaN));
  expect([...result.weight!]).toEqual(only(twin.weight, 7, 50));
  expect([...result.bias!]).toEqual(only(twin.bias, 5, 18));
});
