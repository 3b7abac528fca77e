import { expect, test } from "vitest";
import { decayBackward, decayMoments } from "../../src/reference/decay.ts";
import { normals } from "./inputs.ts";

test("decayed means by hand", () => {
  const { h, state } = decayMoments([1, 1, 3, 3], [0.5, 1], { batch: 1, length: 2, momentDim: 2 });
  expect([...h]).toEqual([1, 1, 3.5 / 1.5, 2]);
  expect([...state.count]).toEqual([1.5, 2]);
});

test("cut anywhere, they are those of one call", () => {
  const sizes = { batch: 1, momentDim: 4 };
  const [m, factors] = [normals(1, 40), [0.3, 1]];
  const whole = decayMoments(m, factors, { ...sizes, length: 10 });
  const head = decayMoments(m.slice(0, 12), factors, { ...sizes, length: 3 });
  const tail = decayMoments(m.slice(12), factors, { ...sizes, length: 7 }, head.state);
  expect([...head.h, ...tail.h]).toEqual([...whole.h]);
  expect(tail.state).toEqual(whole.state);
});

test("their gradients are those of finite differences", () => {
  const sizes = { batch: 2, length: 5, momentDim: 6 };
  const [m, dh, factors] = [normals(1, 60), normals(2, 60), [0.2, 0.9, 1]];
  const g = decayBackward(dh, factors, sizes);
  const loss = (values: ArrayLike<number>) => decayMoments(values, factors, sizes).h.reduce((sum, v, i) => sum + v * dh[i]!, 0);
  // The loss is linear: what is left is rounding.
  g.forEach((expected, i) => {
    const moved = (by: number) => loss(Float64Array.from(m, (v, j) => (j === i ? v + by : v)));
    expect((moved(1e-6) - moved(-1e-6)) / 2e-6).toBeCloseTo(expected, 7);
  });
});

test("factors outside (0, 1] are refused", () => {
  expect(() => decayMoments([1, 1], [1.5], { batch: 1, length: 2, momentDim: 1 })).toThrow(/factors\[0\] must be in \(0, 1\], got 1.5/);
  expect(() => decayMoments([1, 1], [0], { batch: 1, length: 2, momentDim: 1 })).toThrow(RangeError);
  expect(() => decayMoments([1, 1], [1, 1, 1], { batch: 1, length: 1, momentDim: 2 })).toThrow(/factors must have a number that divides/);
});
