/** The mean moments in the bytes of a saved state of one batch row: src/layers/state_format.ts says how they lie. */
export function momentsOf(bytes: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const headerBytes = view.getUint32(12, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(16, 16 + headerBytes))) as {
    readonly dim: number;
    readonly order: number;
    readonly orderExpand: number;
    readonly levels: number;
    readonly count: readonly [number];
  };
  const width = header.order * header.orderExpand * header.dim;
  const result = new Float32Array(width);
  for (let level = 0; level < header.levels; level++) {
    for (let j = 0; j < width; j++) result[j] = (result[j] ?? 0) + view.getFloat32(16 + headerBytes + 4 * (level * width + j), true);
  }
  return result.map((sum) => sum / header.count[0]);
}
