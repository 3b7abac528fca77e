import { describe, expect, it } from "vitest";
import { principalComponents } from "../../demo/inside/components.ts";
import { normals } from "../reference/inputs.ts";

const at = (coordinates: Float32Array, i: number) => [...coordinates.subarray(3 * i, 3 * i + 3)];
const apart = (a: ArrayLike<number>, b: ArrayLike<number>) => Math.hypot(...Array.from(a, (value, j) => value - b[j]!));

describe("principalComponents", () => {
  it("keeps the distances of points that lie in three dimensions, whatever space they are in", () => {
    const [n, width] = [40, 100];
    const flat = normals(1, n * 3);
    // Three orthogonal directions of different lengths, far from the origin.
    const points = Array.from({ length: n }, (_, i) => {
      const point = new Float32Array(width).fill(7);
      for (let axis = 0; axis < 3; axis++) point[10 * axis + 5]! += flat[3 * i + axis]! * (3 - axis);
      return point;
    });
    const { coordinates, shares } = principalComponents(points);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < i; j++) expect(apart(at(coordinates, i), at(coordinates, j))).toBeCloseTo(apart(points[i]!, points[j]!), 3);
    }
    expect(shares.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 9);
    expect(shares).toEqual([...shares].sort((a, b) => b - a));
  });

  it("finds the directions of the largest spread, and how much of it they hold", () => {
    const [n, width] = [60, 30];
    const noise = normals(2, n * width, 0.1);
    const points = Array.from({ length: n }, (_, i) =>
      Float32Array.from({ length: width }, (_, j) => noise[i * width + j]! + (j === 4 ? 5 * Math.sin(i) : 0)),
    );
    const { coordinates, shares } = principalComponents(points);
    expect(shares[0]).toBeGreaterThan(0.97);
    // The first axis is coordinate 4, up to its sign and its mean.
    const mean = points.reduce((sum, point) => sum + point[4]!, 0) / n;
    const sign = Math.sign(coordinates[0]! * (points[0]![4]! - mean));
    for (let i = 0; i < n; i++) expect(sign * coordinates[3 * i]!).toBeCloseTo(points[i]![4]! - mean, 0);
    // Each axis points to its farthest point.
    for (let axis = 0; axis < 3; axis++) {
      const values = Array.from({ length: n }, (_, i) => coordinates[3 * i + axis]!);
      expect(Math.max(...values)).toBeGreaterThanOrEqual(-Math.min(...values));
    }
  });

  it.each([0, 1, 2])("takes %i points", (n) => {
    const points = Array.from({ length: n }, (_, i) => new Float32Array([i, 2 * i, 0]));
    const { coordinates, shares } = principalComponents(points);
    expect(coordinates).toHaveLength(3 * n);
    expect(coordinates.every(Number.isFinite)).toBe(true);
    expect(shares[0]).toBeCloseTo(n > 1 ? 1 : 0, 9);
  });
});
