/** `length` normal numbers of this deviation, the same for a seed. */
export function normals(seed: number, length: number, deviation = 1): Float32Array<ArrayBuffer> {
  const next = uniform(seed);
  // Box and Muller's two at a time.
  const values = new Float32Array(length);
  for (let i = 0; i < length; i += 2) {
    const radius = deviation * Math.sqrt(-2 * Math.log(1 - next()));
    const angle = 2 * Math.PI * next();
    values[i] = radius * Math.cos(angle);
    if (i + 1 < length) values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** Weights of a layer as they are before training: normal, so sized that the outputs are about as large as the inputs. */
export function layerParams(seed: number, dim: number, order: number, orderExpand: number): Record<string, Float32Array> {
  const moments = order * orderExpand * dim;
  const weights = (i: number, outer: number, inner: number) => normals(seed + i, outer * inner, 1 / Math.sqrt(inner));
  return {
    "ho_proj.weight": weights(0, moments, dim),
    "se_proj.weight": weights(1, moments, dim),
    "ag_proj.weight": weights(2, dim, moments),
  };
}

/** The same of a polynomial mixer: moments, then gates, in `qc_proj`. */
export function pomParams(seed: number, dim: number, degree: number, expand: number): Record<string, Float32Array> {
  const moments = expand * dim;
  return {
    "qc_proj.weight": normals(seed, 2 * moments * dim, 1 / Math.sqrt(dim)),
    se_bias: new Float32Array(moments),
    po_coeff: normals(seed + 1, moments * degree, 1 / Math.sqrt(degree)),
    "ag_proj.weight": normals(seed + 2, dim * moments, 1 / Math.sqrt(moments)),
  };
}

/** Numbers from 0 to 1, without 1 (mulberry32). */
function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
