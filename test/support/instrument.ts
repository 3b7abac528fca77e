/** A buffer that a watched device made. */
export interface WatchedBuffer {
  readonly label: string;
  readonly size: number;
  readonly usage: number;
  readonly buffer: GPUBuffer;
  destroyed: boolean;
}

export interface WatchedDispatch {
  /** Label of the pipeline. */
  readonly pipeline: string;
  /** The kernel's name, from a label `hom.<kernel>[/variant…].pipeline`. */
  readonly kernel: string;
  readonly workgroups: readonly [number, number, number];
  /** Sizes of what was bound, the uniform included. */
  readonly bindings: readonly number[];
}

/** What a device was asked to do since the last `reset()`; buffers are followed from the beginning. */
export interface Instrument {
  readonly buffers: readonly WatchedBuffer[];
  readonly dispatches: readonly WatchedDispatch[];
  /** Labels of everything created, by the method that created it. */
  readonly created: readonly { readonly method: string; readonly label: string }[];
  readonly submits: number;
  readonly copies: number;
  readonly clears: number;
  readonly maps: number;
  readonly passes: number;
  readonly bytesWritten: number;
  readonly bytesMappedAtCreation: number;
  readonly deviceDestroyed: boolean;
  readonly liveBuffers: number;
  readonly liveBytes: number;
  readonly peakBytes: number;
  /** Live buffers whose label matches. */
  live(label: RegExp): WatchedBuffer[];
  count(method: string): number;
  /** Starts counting anew; live buffers stay known, the peak starts from them. */
  reset(): void;
  /** Gives the device its own methods back. */
  restore(): void;
}

const CREATES = [
  "createShaderModule",
  "createBindGroup",
  "createBindGroupLayout",
  "createPipelineLayout",
  "createComputePipeline",
  "createComputePipelineAsync",
  "createQuerySet",
  "createSampler",
  "createTexture",
  "createRenderPipeline",
] as const;

// biome-ignore lint/suspicious/noExplicitAny: methods of many signatures are wrapped by name
type Methods = Record<string, any>;

/** Replaces methods of `object` by functions of the original ones; returns what puts these back. */
function patch(object: object, wrappers: Record<string, (original: (...args: never[]) => unknown) => (...args: never[]) => unknown>): () => void {
  const target = object as Methods;
  for (const [name, wrap] of Object.entries(wrappers)) {
    const original = target[name];
    if (typeof original !== "function") throw new Error(`instrument: no method ${name}`);
    Object.defineProperty(target, name, { value: wrap(original.bind(object)), configurable: true, writable: true });
  }
  return () => {
    for (const name of Object.keys(wrappers)) delete target[name];
  };
}

/** Counts what a device is asked to do, by wrapping the methods of this one device. Objects made before are not followed. */
export function instrument(device: GPUDevice): Instrument {
  const buffers: WatchedBuffer[] = [];
  const sizes = new Map<object, number[]>();
  const pipelines = new Map<object, string>();
  let dispatches: WatchedDispatch[] = [];
  let created: { method: string; label: string }[] = [];
  const zero = { submits: 0, copies: 0, clears: 0, maps: 0, passes: 0, bytesWritten: 0, bytesMappedAtCreation: 0, peakBytes: 0 };
  let counts = { ...zero };
  let deviceDestroyed = false;
  const liveBytes = () => buffers.reduce((sum, b) => sum + (b.destroyed ? 0 : b.size), 0);
  const note = (method: string, label: string | undefined) => created.push({ method, label: label ?? "" });

  const watchPass = (pass: GPUComputePassEncoder) => {
    let pipeline = "";
    let bindings: number[] = [];
    patch(pass, {
      setPipeline: (original) => (p: GPUComputePipeline) => {
        pipeline = pipelines.get(p) ?? p.label;
        return original(p as never);
      },
      setBindGroup:
        (original) =>
        (...args: [number, GPUBindGroup]) => {
          bindings = sizes.get(args[1]) ?? [];
          return original(...(args as unknown as never[]));
        },
      dispatchWorkgroups:
        (original) =>
        (x: number, y = 1, z = 1) => {
          const kernel = /^hom\.([^./]+)/.exec(pipeline)?.[1] ?? pipeline;
          dispatches.push({ pipeline, kernel, workgroups: [x, y, z], bindings });
          return original(...([x, y, z] as never[]));
        },
    });
  };

  const watchEncoder = (encoder: GPUCommandEncoder) => {
    const counted =
      (key: "copies" | "clears") =>
      (original: (...args: never[]) => unknown) =>
      (...args: never[]) => {
        counts[key]++;
        return original(...args);
      };
    patch(encoder, {
      beginComputePass: (original) => (descriptor?: GPUComputePassDescriptor) => {
        note("beginComputePass", descriptor?.label);
        counts.passes++;
        const pass = original(descriptor as never) as GPUComputePassEncoder;
        watchPass(pass);
        return pass;
      },
      copyBufferToBuffer: counted("copies"),
      clearBuffer: counted("clears"),
      finish: (original) => (descriptor?: GPUCommandBufferDescriptor) => {
        note("finish", descriptor?.label);
        return original(...((descriptor ? [descriptor] : []) as never[]));
      },
    });
  };

  const watchBuffer = (buffer: GPUBuffer, descriptor: GPUBufferDescriptor) => {
    const entry: WatchedBuffer = { label: descriptor.label ?? "", size: descriptor.size, usage: descriptor.usage, buffer, destroyed: false };
    buffers.push(entry);
    note("createBuffer", descriptor.label);
    if (descriptor.mappedAtCreation) counts.bytesMappedAtCreation += descriptor.size;
    counts.peakBytes = Math.max(counts.peakBytes, liveBytes());
    patch(buffer, {
      destroy: (original) => () => {
        entry.destroyed = true;
        return original();
      },
      mapAsync:
        (original) =>
        (...args: never[]) => {
          counts.maps++;
          return original(...args);
        },
    });
  };

  const restoreQueue = patch(device.queue, {
    submit: (original) => (list: GPUCommandBuffer[]) => {
      counts.submits++;
      return original(list as never);
    },
    writeBuffer:
      (original) =>
      (...args: Parameters<GPUQueue["writeBuffer"]>) => {
        const [, , data, offset = 0, size] = args;
        const unit = ArrayBuffer.isView(data) ? ((data as unknown as { BYTES_PER_ELEMENT?: number }).BYTES_PER_ELEMENT ?? 1) : 1;
        counts.bytesWritten += size === undefined ? data.byteLength - offset * unit : size * unit;
        return original(...(args as unknown as never[]));
      },
  });
  const restoreDevice = patch(device, {
    createBuffer: (original) => (descriptor: GPUBufferDescriptor) => {
      const buffer = original(descriptor as never) as GPUBuffer;
      watchBuffer(buffer, descriptor);
      return buffer;
    },
    createCommandEncoder: (original) => (descriptor?: GPUCommandEncoderDescriptor) => {
      note("createCommandEncoder", descriptor?.label);
      const encoder = original(...((descriptor ? [descriptor] : []) as never[])) as GPUCommandEncoder;
      watchEncoder(encoder);
      return encoder;
    },
    destroy: (original) => () => {
      deviceDestroyed = true;
      return original();
    },
    ...Object.fromEntries(
      CREATES.map((method) => [
        method,
        (original: (...args: never[]) => unknown) => (descriptor: GPUObjectDescriptorBase) => {
          note(method, descriptor?.label);
          const object = original(descriptor as never) as object;
          if (method === "createComputePipeline") pipelines.set(object, descriptor.label ?? "");
          if (method === "createComputePipelineAsync") {
            return (object as Promise<object>).then((pipeline) => {
              pipelines.set(pipeline, descriptor.label ?? "");
              return pipeline;
            });
          }
          if (method === "createBindGroup") {
            const { entries } = descriptor as GPUBindGroupDescriptor;
            sizes.set(
              object,
              [...entries].map(({ resource }) => {
                const { buffer, offset = 0, size } = resource as GPUBufferBinding;
                return size ?? buffer.size - offset;
              }),
            );
          }
          return object;
        },
      ]),
    ),
  });

  return {
    buffers,
    get dispatches() {
      return dispatches;
    },
    get created() {
      return created;
    },
    get submits() {
      return counts.submits;
    },
    get copies() {
      return counts.copies;
    },
    get clears() {
      return counts.clears;
    },
    get maps() {
      return counts.maps;
    },
    get passes() {
      return counts.passes;
    },
    get bytesWritten() {
      return counts.bytesWritten;
    },
    get bytesMappedAtCreation() {
      return counts.bytesMappedAtCreation;
    },
    get peakBytes() {
      return counts.peakBytes;
    },
    get deviceDestroyed() {
      return deviceDestroyed;
    },
    get liveBuffers() {
      return buffers.filter((b) => !b.destroyed).length;
    },
    get liveBytes() {
      return liveBytes();
    },
    live: (label) => buffers.filter((b) => !b.destroyed && label.test(b.label)),
    count: (method) => created.filter((c) => c.method === method).length,
    reset: () => {
      dispatches = [];
      created = [];
      counts = { ...zero, peakBytes: liveBytes() };
    },
    restore: () => {
      restoreQueue();
      restoreDevice();
    },
  };
}
