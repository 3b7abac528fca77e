// Counts what any code asks of WebGPU from now on, by wrapping the methods of WebGPU's own classes: libraries that are loaded later cannot pass it by.
// In Node the classes are globals once Dawn has been installed.

/**
 * A dispatch that was recorded: enough to record it again.
 * @typedef {{ device: GPUDevice, pipeline: GPUComputePipeline, groups: Map<number, [GPUBindGroup, number[] | undefined]>, grid: [number, number, number] }} RecordedDispatch
 */

/** @typedef {ReturnType<typeof instrument>} Instrument */

export function instrument() {
  const counts = { dispatches: 0, submits: 0, liveBytes: 0, liveBuffers: 0, peakBytes: 0 };
  /** @type {GPUDevice[]} */
  const devices = [];
  /** @type {string[]} */
  const complaints = [];
  /** @type {RecordedDispatch[] | undefined} */
  let recording;
  /** Of passes that are being recorded. @type {WeakMap<object, { device: GPUDevice, pipeline?: GPUComputePipeline, groups: RecordedDispatch["groups"] }>} */
  const passes = new WeakMap();
  /** @type {WeakMap<object, GPUDevice>} */
  const deviceOf = new WeakMap();
  /** @type {WeakSet<object>} */
  const alive = new WeakSet();

  /**
   * Replaces a method by `make(original)`.
   * @param {object} prototype @param {string} name @param {(original: Function) => Function} make
   */
  const wrap = (prototype, name, make) => {
    const methods = /** @type {Record<string, Function>} */ (prototype);
    const original = methods[name];
    if (original) methods[name] = make(original);
  };

  wrap(
    GPUAdapter.prototype,
    "requestDevice",
    (original) =>
      /** @this {GPUAdapter} @param {unknown[]} args */
      async function (...args) {
        const device = await original.apply(this, args);
        devices.push(device);
        device.addEventListener("uncapturederror", (/** @type {GPUUncapturedErrorEvent} */ event) => complaints.push(event.error.message));
        return device;
      },
  );
  wrap(
    GPUDevice.prototype,
    "createBuffer",
    (original) =>
      /** @this {GPUDevice} @param {unknown[]} args */
      function (...args) {
        const buffer = original.apply(this, args);
        alive.add(buffer);
        counts.liveBuffers++;
        counts.liveBytes += buffer.size;
        counts.peakBytes = Math.max(counts.peakBytes, counts.liveBytes);
        return buffer;
      },
  );
  wrap(
    GPUBuffer.prototype,
    "destroy",
    (original) =>
      /** @this {GPUBuffer} */
      function () {
        if (alive.delete(this)) {
          counts.liveBuffers--;
          counts.liveBytes -= this.size;
        }
        return original.call(this);
      },
  );
  wrap(
    GPUDevice.prototype,
    "createCommandEncoder",
    (original) =>
      /** @this {GPUDevice} @param {unknown[]} args */
      function (...args) {
        const encoder = original.apply(this, args);
        deviceOf.set(encoder, this);
        return encoder;
      },
  );
  wrap(
    GPUCommandEncoder.prototype,
    "beginComputePass",
    (original) =>
      /** @this {GPUCommandEncoder} @param {unknown[]} args */
      function (...args) {
        const pass = original.apply(this, args);
        const device = deviceOf.get(this);
        if (recording && device) passes.set(pass, { device, groups: new Map() });
        return pass;
      },
  );
  wrap(
    GPUComputePassEncoder.prototype,
    "setPipeline",
    (original) =>
      /** @this {GPUComputePassEncoder} @param {GPUComputePipeline} pipeline */
      function (pipeline) {
        const pass = recording && passes.get(this);
        if (pass) pass.pipeline = pipeline;
        return original.call(this, pipeline);
      },
  );
  wrap(
    GPUComputePassEncoder.prototype,
    "setBindGroup",
    (original) =>
      /** @this {GPUComputePassEncoder} @param {number} index @param {GPUBindGroup} group @param {[Iterable<number>?]} rest */
      function (index, group, ...rest) {
        const pass = recording && passes.get(this);
        if (pass) pass.groups.set(index, [group, rest[0] && [...rest[0]]]);
        return original.call(this, index, group, ...rest);
      },
  );
  wrap(
    GPUComputePassEncoder.prototype,
    "dispatchWorkgroups",
    (original) =>
      /** @this {GPUComputePassEncoder} @param {[number, number?, number?]} grid */
      function (...grid) {
        counts.dispatches++;
        const pass = recording && passes.get(this);
        if (recording && pass?.pipeline) {
          const [x, y = 1, z = 1] = grid;
          recording.push({ device: pass.device, pipeline: pass.pipeline, groups: new Map(pass.groups), grid: [x, y, z] });
        }
        return original.apply(this, grid);
      },
  );
  wrap(
    GPUComputePassEncoder.prototype,
    "dispatchWorkgroupsIndirect",
    (original) =>
      /** @this {GPUComputePassEncoder} @param {unknown[]} args */
      function (...args) {
        counts.dispatches++;
        return original.apply(this, args);
      },
  );
  wrap(
    GPUQueue.prototype,
    "submit",
    (original) =>
      /** @this {GPUQueue} @param {unknown[]} args */
      function (...args) {
        counts.submits++;
        return original.apply(this, args);
      },
  );

  return {
    counts,
    /** Every device that was requested. */
    devices,
    /** Errors of these devices that nobody caught. */
    complaints,
    /** Resolves when all submitted work of all devices is done. */
    async done() {
      await Promise.all(devices.map((device) => device.queue.onSubmittedWorkDone()));
    },
    /** The dispatches that `work` records. @param {() => void | Promise<void>} work */
    async record(work) {
      const dispatches = /** @type {RecordedDispatch[]} */ ([]);
      recording = dispatches;
      try {
        await work();
      } finally {
        recording = undefined;
      }
      return dispatches;
    },
  };
}

/** Records dispatches again. @param {GPUComputePassEncoder} pass @param {readonly RecordedDispatch[]} dispatches */
export function replay(pass, dispatches) {
  for (const { pipeline, groups, grid } of dispatches) {
    pass.setPipeline(pipeline);
    for (const [index, [group, offsets]] of groups) pass.setBindGroup(index, group, offsets ?? []);
    pass.dispatchWorkgroups(...grid);
  }
}

/** `hom.moments/vec4/8x4.pipeline` -> `moments`. @param {RecordedDispatch} dispatch */
export function kernelOf({ pipeline }) {
  return /^hom\.(\w+)/.exec(pipeline.label)?.[1] ?? pipeline.label;
}
