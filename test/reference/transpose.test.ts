import { expect, test } from "vitest";
import { transpose } from "../../src/reference/transpose.ts";

test("transpose: some columns, and a bias of 0", () => {
  const w = [1, 2, 3, 4, 5, 6, 7, 8, 9]; // [2 + 1, 3]
  expect(Array.from(transpose(w, { inner: 2, outer: 3, first: 1, count: 2 }))).toEqual([2, 5, 3, 6, 0, 0]);
  expect(() => transpose(w, { inner: 2, outer: 3, first: 1, count: 3 })).toThrow(/count must be an integer from 1 to 2, got 3/);
  expect(() => transpose(w, { inner: 3, outer: 3, first: 0, count: 3 })).toThrow(/w must hold \(inner \+ 1\)·outer = 12 numbers, got 9/);
});
