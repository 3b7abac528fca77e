/** Principal components of a few points with many coordinates. */

export interface Components {
  /** `[points, 3]`: where each point lies on the three axes of largest spread. */
  readonly coordinates: Float32Array<ArrayBuffer>;
  /** Shares of the points' variance that lie along them, from 0 to 1. */
  readonly shares: readonly [number, number, number];
}

/**
 * With fewer points than coordinates, the products of the points among each other are what there is to diagonalise: G = X Xᵀ = U Λ Uᵀ of the centred points X, and
 * point i lies at U_ia √Λ_a on axis a. An axis points to where its largest coordinate is positive.
 */
export function principalComponents(points: readonly Float32Array[]): Components {
  const n = points.length;
  const width = points[0]?.length ?? 0;
  const mean = new Float64Array(width);
  for (const point of points) for (let j = 0; j < width; j++) mean[j] = (mean[j] ?? 0) + (point[j] ?? 0) / n;
  const centred = points.map((point) => Float64Array.from(point, (value, j) => value - (mean[j] ?? 0)));
  const gram = centred.map((a) => centred.map((b) => a.reduce((sum, value, j) => sum + value * (b[j] ?? 0), 0)));
  const { values, vectors } = eigen(gram);
  const total = values.reduce((sum, value) => sum + Math.max(0, value), 0);
  const largest = values.map((value, i) => ({ value: Math.max(0, value), i })).sort((a, b) => b.value - a.value);
  const coordinates = new Float32Array(n * 3);
  const shares: [number, number, number] = [0, 0, 0];
  for (let axis = 0; axis < Math.min(3, n); axis++) {
    const { value = 0, i = 0 } = largest[axis] ?? {};
    shares[axis] = total > 0 ? value / total : 0;
    const column = Array.from({ length: n }, (_, row) => (vectors[row]?.[i] ?? 0) * Math.sqrt(value));
    const farthest = column.reduce((far, at) => (Math.abs(at) > Math.abs(far) ? at : far), 0);
    column.forEach((at, row) => {
      coordinates[row * 3 + axis] = farthest < 0 ? -at : at;
    });
  }
  return { coordinates, shares };
}

/** Eigenvalues and, in columns, eigenvectors of a symmetric matrix, by Jacobi's rotations. */
function eigen(matrix: readonly (readonly number[])[]): { values: number[]; vectors: Float64Array[] } {
  const n = matrix.length;
  const a = matrix.map((row) => Float64Array.from(row));
  const vectors = Array.from({ length: n }, (_, i) => Float64Array.from({ length: n }, (_, j) => (i === j ? 1 : 0)));
  const scale = a.reduce((sum, row, i) => sum + (row[i] ?? 0) ** 2, 0) || 1;
  for (let sweep = 0; sweep < 30; sweep++) {
    let off = 0;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) off += (a[p]?.[q] ?? 0) ** 2;
    if (off < 1e-22 * scale) break;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) rotate(a, vectors, p, q);
  }
  return { values: a.map((row, i) => row[i] ?? 0), vectors };
}

/** Makes a_pq zero. */
function rotate(a: Float64Array[], vectors: Float64Array[], p: number, q: number): void {
  const [rowP, rowQ] = [a[p], a[q]];
  if (!rowP || !rowQ) return;
  const [pp = 0, pq = 0, qq = 0] = [rowP[p], rowP[q], rowQ[q]];
  if (pq === 0) return;
  const theta = (qq - pp) / (2 * pq);
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const c = 1 / Math.sqrt(t * t + 1);
  const s = t * c;
  for (let k = 0; k < a.length; k++) {
    const row = a[k];
    if (!row) continue;
    const [kp = 0, kq = 0] = [row[p], row[q]];
    row[p] = c * kp - s * kq;
    row[q] = s * kp + c * kq;
  }
  for (let k = 0; k < a.length; k++) {
    const [pk = 0, qk = 0] = [rowP[k], rowQ[k]];
    rowP[k] = c * pk - s * qk;
    rowQ[k] = s * pk + c * qk;
  }
  for (const row of vectors) {
    const [kp = 0, kq = 0] = [row[p], row[q]];
    row[p] = c * kp - s * kq;
    row[q] = s * kp + c * kq;
  }
}
