import { expect, test } from "vitest";
import { shift, shiftBackward } from "../../src/reference/shift.ts";
import { normals } from "./inputs.ts";

test("a token shift by hand", () => {
  expect([...shift([1, 10, 3, 20], [0.5, 1], { batch: 1, length: 2, dim: 2 })]).toEqual([0.5, 0, 2, 10]);
  expect([...shift([1, 10], [0.5, 1], { batch: 1, length: 1, dim: 2, previous: [3, 7] })]).toEqual([2, 7]);
});

test("its gradients are those of finite differences", () => {
  const sizes = { batch: 2, length: 5, dim: 3 };
  const [x, mix, dy] = [normals(1, 30), normals(2, 3), normals(3, 30)];
  const { dx, dmix } = shiftBackward(x, mix, dy, sizes);
  const loss = (a: ArrayLike<number>, m: ArrayLike<number>) => shift(a, m, sizes).reduce((sum, v, i) => sum + v * dy[i]!, 0);
  const step = 1e-6;
  const moved = (a: ArrayLike<number>, i: number, by: number) => Float64Array.from(a, (v, j) => (j === i ? v + by : v));
  // The loss is linear in x and in mix: what is left is rounding, 1e-16 of sums of size 10 over a step of 1e-6.
  dx.forEach((g, i) => {
    expect((loss(moved(x, i, step), mix) - loss(moved(x, i, -step), mix)) / (2 * step)).toBeCloseTo(g, 7);
  });
  dmix.forEach((g, i) => {
    expect((loss(x, moved(mix, i, step)) - loss(x, moved(mix, i, -step))) / (2 * step)).toBeCloseTo(g, 7);
  });
});
