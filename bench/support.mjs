/** @param {number[]} values */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] ?? Number.NaN) : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2;
}

/** Standard normal numbers from a seed. @param {number} seed @param {number} length @param {number} [scale] */
export function normals(seed, length, scale = 1) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return Float32Array.from({ length }, () => scale * Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()));
}

/** Parameters of a layer with pre-activations of unit variance. @param {number} seed @param {{ dim: number, order: number, orderExpand: number }} config */
export function layerParams(seed, { dim, order, orderExpand }) {
  const width = order * orderExpand * dim;
  return {
    "ho_proj.weight": normals(seed + 1, width * dim, 1 / Math.sqrt(dim)),
    "ho_proj.bias": normals(seed + 2, width, 0.5),
    "se_proj.weight": normals(seed + 3, width * dim, 1 / Math.sqrt(dim)),
    "se_proj.bias": normals(seed + 4, width, 0.5),
    "ag_proj.weight": normals(seed + 5, dim * width, 1 / Math.sqrt(width)),
    "ag_proj.bias": normals(seed + 6, dim, 0.5),
  };
}

/**
 * Counts what a device is asked to do, from now on: the methods of this one object are wrapped.
 * @param {GPUDevice} device
 */
export function instrument(device) {
  const counts = { dispatches: 0, submits: 0, liveBytes: 0, liveBuffers: 0 };
  const createBuffer = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    const buffer = createBuffer(descriptor);
    counts.liveBytes += buffer.size;
    counts.liveBuffers++;
    const destroy = buffer.destroy.bind(buffer);
    let alive = true;
    buffer.destroy = () => {
      if (alive) {
        counts.liveBytes -= buffer.size;
        counts.liveBuffers--;
      }
      alive = false;
      return destroy();
    };
    return buffer;
  };
  const createCommandEncoder = device.createCommandEncoder.bind(device);
  device.createCommandEncoder = (descriptor) => {
    const encoder = createCommandEncoder(descriptor);
    const beginComputePass = encoder.beginComputePass.bind(encoder);
    encoder.beginComputePass = (passDescriptor) => {
      const pass = beginComputePass(passDescriptor);
      const dispatchWorkgroups = pass.dispatchWorkgroups.bind(pass);
      pass.dispatchWorkgroups = (...grid) => {
        counts.dispatches++;
        return dispatchWorkgroups(...grid);
      };
      return pass;
    };
    return encoder;
  };
  const submit = device.queue.submit.bind(device.queue);
  device.queue.submit = (buffers) => {
    counts.submits++;
    return submit(buffers);
  };
  return counts;
}
