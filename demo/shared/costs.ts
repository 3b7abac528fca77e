/** Counted costs of a layer; the README derives them. A multiply-add counts 2, a number has 4 bytes. */

export interface LayerShape {
  readonly dim: number;
  readonly order: number;
  readonly orderExpand: number;
}

/** Of a moment layer for one more token, whatever came before. */
export function homFlopsPerToken({ dim, order, orderExpand }: LayerShape): number {
  const moments = order * orderExpand * dim;
  return 2 * dim * moments + (moments * (order - 1)) / order + moments + 4 * dim * moments;
}

/** Of softmax attention for one more token that looks back at `tokens` of them: four projections, its scores and their sum of values. */
export function attentionFlopsPerToken(dim: number, tokens: number): number {
  return 8 * dim ** 2 + 4 * tokens * dim;
}

/** Keys and values that attention keeps of this many tokens. */
export function attentionMemory(dim: number, tokens: number): number {
  return 2 * tokens * dim * 4;
}

/** From this many tokens on, one more costs attention more than it costs the moment layer. */
export function crossover(shape: LayerShape): number {
  return Math.max(0, (homFlopsPerToken(shape) - 8 * shape.dim ** 2) / (4 * shape.dim));
}
