/** [cos(p·f) | sin(p·f)] of each position, in float64: WGSL's own sine and cosine lose digits with the angle. */
export function positionFeatures(freqs: Float32Array, positions: readonly number[]): Float32Array<ArrayBuffer> {
  const half = freqs.length;
  const features = new Float32Array(positions.length * 2 * half);
  positions.forEach((position, row) => {
    freqs.forEach((frequency, j) => {
      features[row * 2 * half + j] = Math.cos(position * frequency);
      features[row * 2 * half + half + j] = Math.sin(position * frequency);
    });
  });
  return features;
}
