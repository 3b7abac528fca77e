import { describe, expect, it } from "vitest";
import { drawFeatures } from "../../src/baselines/draw.ts";
import { expandMoments } from "../../src/reference/moments.ts";
import { FEATURE_MAPS, type FeatureMap, featureRows } from "../../src/reference/random_features.ts";
import { normals, uniforms } from "./inputs.ts";

/**
 * Estimates are compared with what theory says they tend to, in standard errors. A normal number is beyond this many in 7 of a million cases; the seeds are fixed, so that a
 * test passes always or never.
 */
const STANDARD_ERRORS = 4.5;

const dot = (x: ArrayLike<number>, y: ArrayLike<number>): number => Array.from(x).reduce((sum, value, i) => sum + value * y[i]!, 0);

/** E[(r·x)²(r·y)²] for random signs r: |x|²|y|² + 2⟨x, y⟩² - 2 Σ x_i² y_i². */
function fourthMoment(x: ArrayLike<number>, y: ArrayLike<number>): number {
  const squares = Array.from(x).reduce((sum, value, i) => sum + (value * y[i]!) ** 2, 0);
  return dot(x, x) * dot(y, y) + 2 * dot(x, y) ** 2 - 2 * squares;
}

interface Sampled {
  readonly mean: number;
  /** Of the mean. */
  readonly standardError: number;
}

function sampled(values: ArrayLike<number>): Sampled {
  const n = values.length;
  const mean = Array.from(values).reduce((a, b) => a + b, 0) / n;
  const variance = Array.from(values).reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  return { mean, standardError: Math.sqrt(variance / n) };
}

/** Two vectors of length `length` with a given cosine. */
function pair(seed: number, dim: number, length: number, cosine: number): [Float64Array, Float64Array] {
  const unit = (v: Float64Array) => v.map((value) => value / Math.sqrt(dot(v, v)));
  const x = unit(normals(seed, dim));
  const other = normals(seed + 1, dim);
  const across = unit(other.map((value, i) => value - dot(other, x) * x[i]!));
  const y = x.map((value, i) => cosine * value + Math.sqrt(1 - cosine * cosine) * across[i]!);
  return [x.map((value) => length * value), y.map((value) => length * value)];
}

const signs = (seed: number, length: number): Float64Array => {
  const next = uniforms(seed);
  return Float64Array.from({ length }, () => (next() < 0.5 ? -1 : 1));
};

describe("the moment layer with identity and random signs is a random Maclaurin map", () => {
  const [dim, orderExpand, seeds] = [8, 32, 60];
  const width = orderExpand * dim;
  const shape = { dim, order: 4, orderExpand, activation: "identity" } as const;

  /** m_k(x)_c m_k(y)_c for every channel c and seed, by order. */
  function products(x: Float64Array, y: Float64Array, map: (weight: Float64Array, v: Float64Array) => ArrayLike<number>): Float64Array[] {
    const byOrder = [1, 2, 3, 4].map(() => new Float64Array(width * seeds));
    for (let seed = 0; seed < seeds; seed++) {
      const weight = signs(1000 + seed, 4 * width * dim);
      const [mx, my] = [map(weight, x), map(weight, y)];
      for (let i = 0; i < 4 * width; i++) byOrder[Math.floor(i / width)]![seed * width + (i % width)] = mx[i]! * my[i]!;
    }
    return byOrder;
  }

  const moments = (weight: Float64Array, v: Float64Array) => {
    const params = { "ho_proj.weight": weight, "se_proj.weight": weight, "ag_proj.weight": weight };
    return expandMoments(v, params, shape);
  };

  it.each([0.9, 0.3, -0.6])("⟨m_k(x), m_k(y)⟩ / width tends to ⟨x, y⟩ᵏ, k = 1 to 4, at a cosine of %d", (cosine) => {
    const [x, y] = pair(5, dim, 1.3, cosine);
    const byOrder = products(x, y, moments);
    for (const [i, values] of byOrder.entries()) {
      const k = i + 1;
      // Channels and seeds are independent; factors within a channel, too.
      const variance = fourthMoment(x, y) ** k - dot(x, y) ** (2 * k);
      const z = (sampled(values).mean - dot(x, y) ** k) / Math.sqrt(variance / values.length);
      expect(Math.abs(z), `order ${k}: ${z} standard errors`).toBeLessThan(STANDARD_ERRORS);
    }
  });

  it("powers of one feature, which the layer could be mistaken for, fail the same test", () => {
    const [x, y] = pair(5, dim, 1.3, 0.3);
    const powers = (weight: Float64Array, v: Float64Array) => {
      const m = moments(weight, v);
      return Float64Array.from(m, (_, i) => (m[i % width] as number) ** (Math.floor(i / width) + 1));
    };
    const values = products(x, y, powers)[1]!;
    const variance = fourthMoment(x, y) ** 2 - dot(x, y) ** 4;
    const z = (sampled(values).mean - dot(x, y) ** 2) / Math.sqrt(variance / values.length);
    expect(z).toBeGreaterThan(5 * STANDARD_ERRORS);
  });
});

/** What φ(x)·φ(y) estimates, and the variance of a single feature's estimate where vectors are independent. x and y are as the map scales them. */
function theory(featureMap: FeatureMap, x: Float64Array, y: Float64Array): { kernel: number; variance: number } {
  const [xx, yy, xy] = [dot(x, x), dot(y, y), dot(x, y)];
  if (featureMap === "favor") {
    // exp of a normal number of variance |x + y|².
    const sum2 = xx + yy + 2 * xy;
    return { kernel: Math.exp(xy), variance: Math.exp(2 * sum2 - xx - yy) - Math.exp(2 * xy) };
  }
  if (featureMap === "rfa") {
    // A sine and a cosine of one vector give cos(ω·(x - y)).
    const kernel = Math.exp(-(xx + yy - 2 * xy) / 2);
    return { kernel, variance: (1 - kernel ** 2) ** 2 / 2 };
  }
  // Σ_n P[n] (1 / (P[n] n!))² E[(r·x)²(r·y)²]ⁿ, P[n] = 2^-(n+1).
  let [second, term] = [0, 2];
  for (let n = 0; n < 60; n++) {
    second += term;
    term *= (2 * fourthMoment(x, y)) / (n + 1) ** 2;
  }
  const gaussian = featureMap === "maclaurin_gaussian" ? Math.exp(-(xx + yy) / 2) : 1;
  return { kernel: Math.exp(xy) * gaussian, variance: (second - Math.exp(2 * xy)) * gaussian ** 2 };
}

describe.each(FEATURE_MAPS)("%s tends to its kernel as 1/√features", (featureMap) => {
  const [dim, draws] = [8, 400];
  const counts = [16, 64, 256, 1024];
  // Long enough for higher degrees to matter, short where the estimates would have heavy tails.
  const [q, k] = pair(9, dim, featureMap === "favor" ? 1 : 2, 0.4);
  const scaled = (v: Float64Array) => v.map((value) => (featureMap === "rfa" ? value / Math.sqrt(dot(v, v)) : value * dim ** -0.25));
  const { kernel, variance } = theory(featureMap, scaled(q), scaled(k));

  function estimates(features: number, orthogonal: boolean): Float64Array {
    const config = { dim, heads: 1, featureMap, features };
    const [left, right] = [new Float64Array(features), new Float64Array(features)];
    return Float64Array.from({ length: draws }, (_, draw) => {
      const [map] = featureRows("test", drawFeatures(config, 10_000 * features + draw, { orthogonal }), config, false);
      map!(q, left);
      map!(k, right);
      return dot(left, right);
    });
  }

  const all = counts.map((features) => ({ features, values: estimates(features, false) }));
  const squares = all.map(({ features, values }) => ({ features, ...sampled(values.map((value) => (value - kernel) ** 2)) }));

  it("without bias", () => {
    for (const { features, values } of all) {
      const { mean, standardError } = sampled(values);
      const z = (mean - kernel) / standardError;
      expect(Math.abs(z), `${features} features: ${z} standard errors`).toBeLessThan(STANDARD_ERRORS);
    }
  });

  it("with the variance that independent vectors have", () => {
    for (const { features, mean, standardError } of squares) {
      const vectors = featureMap === "rfa" ? features / 2 : features;
      const z = (mean - variance / vectors) / standardError;
      expect(Math.abs(z), `${features} features: ${z} standard errors`).toBeLessThan(STANDARD_ERRORS);
    }
  });

  it("the error falls by 2 where features grow by 4", () => {
    const [first, last] = [squares[0]!, squares.at(-1)!];
    const slope = Math.log(Math.sqrt(last.mean / first.mean)) / Math.log(last.features / first.features);
    // log √s has half the relative error of s.
    const relative = Math.hypot(first.standardError / first.mean, last.standardError / last.mean) / 2;
    const bound = (STANDARD_ERRORS * relative) / Math.log(last.features / first.features);
    expect(bound, "narrow enough to tell 1/√R from 1/R and from no progress").toBeLessThan(0.12);
    expect(Math.abs(slope + 0.5), `slope ${slope}`).toBeLessThan(bound);
  });

  if (featureMap === "favor" || featureMap === "rfa") {
    it("orthogonal vectors have no bias and less variance", () => {
      for (const { features, mean: independent } of squares.filter(({ features }) => features <= 256)) {
        const values = estimates(features, true);
        const { mean, standardError } = sampled(values);
        expect(Math.abs(mean - kernel) / standardError, `${features} features`).toBeLessThan(STANDARD_ERRORS);
        expect(sampled(values.map((value) => (value - kernel) ** 2)).mean, `${features} features`).toBeLessThan(independent);
      }
    });
  }
});

describe("drawFeatures", () => {
  it("gives the same for a seed, other numbers for another, and vectors of the right shape", () => {
    for (const featureMap of FEATURE_MAPS) {
      const config = { dim: 12, heads: 3, featureMap, features: 10 };
      const [a, b, c] = [drawFeatures(config, 1), drawFeatures(config, 1), drawFeatures(config, 2)];
      expect(a).toEqual(b);
      expect(a).not.toEqual(c);
      if (a["omega"]) expect(a["omega"]).toHaveLength(3 * (featureMap === "rfa" ? 5 : 10) * 4);
      else {
        const levels = Math.max(...a["degrees"]!);
        expect(a["rademacher"]).toHaveLength(3 * 10 * levels * 4);
        expect(new Set(a["rademacher"])).toEqual(new Set([-1, 1]));
      }
    }
  });

  it("makes vectors orthogonal within a group of d, heads apart", () => {
    const { omega } = drawFeatures({ dim: 10, heads: 2, featureMap: "favor", features: 7 }, 3);
    const vector = (head: number, i: number) => omega!.subarray((head * 7 + i) * 5, (head * 7 + i + 1) * 5);
    for (const head of [0, 1]) {
      for (const [i, j] of [
        [0, 1],
        [2, 4],
        [5, 6],
      ] as const)
        expect(Math.abs(dot(vector(head, i), vector(head, j)))).toBeLessThan(1e-5);
      expect(Math.abs(dot(vector(head, 0), vector(head, 5)))).toBeGreaterThan(1e-3);
    }
  });

  it("refuses what a layer refuses", () => {
    const config = { dim: 12, heads: 3, featureMap: "rfa", features: 10 } as const;
    expect(() => drawFeatures({ ...config, features: 9 }, 1)).toThrow(/^drawFeatures: features must be even for featureMap "rfa", got 9/);
    expect(() => drawFeatures({ ...config, heads: 5 }, 1)).toThrow(/^drawFeatures: heads must divide the width 12, got 5/);
    expect(() => drawFeatures(config, -1)).toThrow(/^drawFeatures: seed must be an integer from 0 to 4294967295, got -1/);
    expect(() => drawFeatures(config, 1, { orthogonl: true } as never)).toThrow(/the unknown key "orthogonl"/);
  });
});
