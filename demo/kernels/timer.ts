/** Times what a layer submits, dispatch by dispatch, without the layer knowing. */

/** A set of queries may have so many, two for a stretch of time. */
const MOST_QUERIES = 4096;

type Split = "calls" | "dispatches";

/**
 * GPU time by timestamps around compute passes. While `work` runs, the device hands out encoders that note them: around each pass as it is, or around each
 * dispatch in a pass of its own.
 */
export class KernelTimer {
  readonly #device: GPUDevice;
  readonly #queries: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #staging: GPUBuffer;

  /** @param device with the feature `timestamp-query` */
  constructor(device: GPUDevice) {
    this.#device = device;
    this.#queries = device.createQuerySet({ type: "timestamp", count: MOST_QUERIES });
    const size = MOST_QUERIES * 8;
    this.#resolved = device.createBuffer({ size, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC });
    this.#staging = device.createBuffer({ size, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
  }

  /** Milliseconds of each pass that `work` submits. */
  passes(work: () => void): Promise<number[]> {
    return this.#time("calls", work);
  }

  /** Milliseconds of each dispatch that `work` submits. Each waits for the one before, so that their sum can exceed the time of a whole pass. */
  dispatches(work: () => void): Promise<number[]> {
    return this.#time("dispatches", work);
  }

  destroy(): void {
    this.#queries.destroy();
    this.#resolved.destroy();
    this.#staging.destroy();
  }

  async #time(split: Split, work: () => void): Promise<number[]> {
    const device = this.#device;
    let used = 0;
    const next = (): GPUComputePassTimestampWrites => {
      if (used + 2 > MOST_QUERIES) throw new Error(`only ${MOST_QUERIES / 2} stretches of time can be measured at once`);
      used += 2;
      return { querySet: this.#queries, beginningOfPassWriteIndex: used - 2, endOfPassWriteIndex: used - 1 };
    };
    const createCommandEncoder = device.createCommandEncoder.bind(device);
    device.createCommandEncoder = (descriptor) => noting(createCommandEncoder(descriptor), split, next);
    try {
      work();
    } finally {
      // Off the object, so that the prototype's own shows again.
      delete (device as Partial<GPUDevice>).createCommandEncoder;
    }
    if (used === 0) return [];
    const encoder = device.createCommandEncoder();
    encoder.resolveQuerySet(this.#queries, 0, used, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, this.#staging, 0, used * 8);
    device.queue.submit([encoder.finish()]);
    await this.#staging.mapAsync(GPUMapMode.READ, 0, used * 8);
    const stamps = new BigUint64Array(this.#staging.getMappedRange(0, used * 8).slice(0));
    this.#staging.unmap();
    // Some drivers stamp an end before its beginning when the stretch is short.
    return Array.from({ length: used / 2 }, (_, i) => Math.max(0, Number((stamps[2 * i + 1] ?? 0n) - (stamps[2 * i] ?? 0n)) / 1e6));
  }
}

/** An encoder whose compute passes note their time. */
function noting(encoder: GPUCommandEncoder, split: Split, next: () => GPUComputePassTimestampWrites): GPUCommandEncoder {
  const beginComputePass = (descriptor: GPUComputePassDescriptor = {}): GPUComputePassEncoder =>
    split === "calls" ? encoder.beginComputePass({ ...descriptor, timestampWrites: next() }) : passPerDispatch(encoder, next);
  return new Proxy(encoder, {
    get(target, key) {
      if (key === "beginComputePass") return beginComputePass;
      const value = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** Stands for a compute pass and makes one for each dispatch. */
function passPerDispatch(encoder: GPUCommandEncoder, next: () => GPUComputePassTimestampWrites): GPUComputePassEncoder {
  let pipeline: GPUComputePipeline | undefined;
  const groups = new Map<number, GPUBindGroup>();
  const pass: Pick<GPUComputePassEncoder, "setPipeline" | "setBindGroup" | "dispatchWorkgroups" | "end"> = {
    setPipeline(set) {
      pipeline = set;
    },
    setBindGroup(index: number, group: GPUBindGroup | null) {
      if (group) groups.set(index, group);
    },
    dispatchWorkgroups(...size) {
      if (!pipeline) throw new Error("a dispatch needs a pipeline");
      const own = encoder.beginComputePass({ timestampWrites: next() });
      own.setPipeline(pipeline);
      for (const [index, group] of groups) own.setBindGroup(index, group);
      own.dispatchWorkgroups(...size);
      own.end();
    },
    end() {},
  };
  return pass as GPUComputePassEncoder;
}
