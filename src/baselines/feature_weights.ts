import { type FeatureMap, features4Of } from "../ops/types.ts";

/** Random vectors of a linear attention as a checkpoint holds them; `omega` for favor and rfa, the others for Maclaurin features. */
export interface FeatureArrays {
  /** `[H, m, d]` */
  readonly omega?: ArrayLike<number> | undefined;
  /** `[H, R, L, d]`; of feature i only the first degree_i of its L vectors are used. */
  readonly rademacher?: ArrayLike<number> | undefined;
  /** `[H, R]` */
  readonly degrees?: ArrayLike<number> | undefined;
}

export interface FeatureSizes {
  readonly featureMap: FeatureMap;
  /** R, the width of φ. */
  readonly features: number;
  readonly heads: number;
  readonly headDim: number;
}

/** Random vectors as random_features.wgsl reads them. */
export interface PackedFeatures {
  readonly w: Float32Array<ArrayBuffer>;
  readonly counts: Uint32Array<ArrayBuffer>;
  /** Per head. */
  readonly vectors: number;
  readonly levels: number;
  /** vec4s of φ, per head. */
  readonly features4: number;
  /** Per head, where each feature of the definition lies in φ. */
  readonly positions: readonly Uint32Array[];
}

/** Random vectors of a head: rfa has a sine and a cosine of each. */
export function vectorsOf({ featureMap, features }: Pick<FeatureSizes, "featureMap" | "features">): number {
  return featureMap === "rfa" ? features / 2 : features;
}

/**
 * Scales and transposes random vectors. Maclaurin features are products of as many factors as their degree says: those of the highest degree come
 * first, so that the later levels of factors are short. The coefficient of a feature is part of its first factor; a factor that a feature lacks is 0·x + 1.
 */
export function packFeatures(sizes: FeatureSizes, arrays: FeatureArrays): PackedFeatures {
  return sizes.featureMap === "favor" || sizes.featureMap === "rfa" ? packGaussian(sizes, arrays) : packMaclaurin(sizes, arrays);
}

class Packer {
  readonly w: Float32Array<ArrayBuffer>;
  readonly #columns: number;
  readonly #rows: number;
  readonly #perHead: number;

  constructor(levels: number, heads: number, headDim: number, vectors: number) {
    this.#perHead = 4 * Math.ceil(vectors / 4);
    this.#columns = heads * this.#perHead;
    this.#rows = 4 * Math.ceil(headDim / 4);
    this.w = new Float32Array(levels * (this.#rows + 1) * this.#columns);
  }

  vector(level: number, head: number, column: number, values: ArrayLike<number>, from: number, length: number, scale: number): void {
    let at = level * (this.#rows + 1) * this.#columns + head * this.#perHead + column;
    for (let d = 0; d < length; d++, at += this.#columns) this.w[at] = scale * (values[from + d] ?? 0);
  }

  bias(level: number, head: number, column: number, value: number): void {
    this.w[(level * (this.#rows + 1) + this.#rows) * this.#columns + head * this.#perHead + column] = value;
  }

  /** Columns of a head, its padding among them. */
  get perHead(): number {
    return this.#perHead;
  }
}

function packGaussian(sizes: FeatureSizes, { omega = [] }: FeatureArrays): PackedFeatures {
  const { featureMap, heads, headDim } = sizes;
  const vectors = vectorsOf(sizes);
  const scale = featureMap === "favor" ? headDim ** -0.25 : 1;
  const packer = new Packer(1, heads, headDim, vectors);
  for (let head = 0; head < heads; head++) {
    for (let i = 0; i < vectors; i++) packer.vector(0, head, i, omega, (head * vectors + i) * headDim, headDim, scale);
  }
  const position = (i: number) => 8 * Math.floor((i % vectors) / 4) + ((i % vectors) % 4) + (i < vectors ? 0 : 4);
  const positions = Uint32Array.from({ length: sizes.features }, (_, i) => (featureMap === "rfa" ? position(i) : i));
  return {
    w: packer.w,
    counts: new Uint32Array(heads).fill(Math.ceil(vectors / 4)),
    vectors,
    levels: 1,
    features4: features4Of(featureMap, vectors),
    positions: Array.from({ length: heads }, () => positions),
  };
}

function packMaclaurin({ featureMap, features, heads, headDim }: FeatureSizes, { rademacher = [], degrees = [] }: FeatureArrays): PackedFeatures {
  const stored = rademacher.length / (heads * features * headDim);
  const degreeOf = (head: number, feature: number) => degrees[head * features + feature] ?? 0;
  let levels = 1;
  for (let i = 0; i < heads * features; i++) levels = Math.max(levels, degrees[i] ?? 0);
  const packer = new Packer(levels, heads, headDim, features);
  const counts = new Uint32Array(levels * heads);
  const positions: Uint32Array[] = [];
  for (let head = 0; head < heads; head++) {
    const order = Array.from({ length: features }, (_, i) => i).sort((a, b) => degreeOf(head, b) - degreeOf(head, a) || a - b);
    const position = new Uint32Array(features);
    for (const [column, feature] of order.entries()) {
      const degree = degreeOf(head, feature);
      const coefficient = coefficientOf(degree) / Math.sqrt(features);
      position[feature] = column;
      for (let level = 0; level < levels; level++) {
        const from = ((head * features + feature) * stored + level) * headDim;
        const scale = headDim ** -0.25 * (level === 0 ? coefficient : 1);
        if (level < degree) packer.vector(level, head, column, rademacher, from, headDim, scale);
        else packer.bias(level, head, column, level === 0 ? coefficient : 1);
      }
    }
    positions.push(position);
    for (let level = 0; level < levels; level++) {
      const used = level === 0 ? features : order.filter((feature) => degreeOf(head, feature) > level).length;
      counts[level * heads + head] = Math.ceil(used / 4);
    }
  }
  return { w: packer.w, counts, vectors: features, levels, features4: features4Of(featureMap, features), positions };
}

/** √(2^(n+1) / n!): a degree n is drawn with probability 2^-(n+1), and its coefficient in the series of exp is 1/n!. */
function coefficientOf(degree: number): number {
  let square = 2;
  for (let n = 1; n <= degree; n++) square *= 2 / n;
  return Math.sqrt(square);
}
