import { type Instrument, instrument, kernelOf, type RecordedDispatch, replay } from "../instrument.mjs";
import type { AdapterReport, Contender, Counts, Driver, Opened, Prepared, Task } from "../types.ts";

declare global {
  /** What the runner finds in a page or a process. */
  var contender: Driver;
}

const LIMITS = ["maxBufferSize", "maxStorageBufferBindingSize", "maxComputeWorkgroupStorageSize", "maxComputeInvocationsPerWorkgroup"] as const;

/** Offers a contender to the runner. Its library is loaded by `start` at the earliest, after WebGPU has been instrumented. */
export function drive(load: () => Promise<Contender>): void {
  const instruments = instrument();
  const { counts } = instruments;
  let prepared: Prepared | undefined;

  const current = (): Prepared => {
    if (!prepared) throw new Error("open a task first");
    return prepared;
  };

  const driver: Driver = {
    machine: describeAdapter,

    async open(task) {
      const before = performance.now();
      const contender = await load();
      await contender.start();
      const started = performance.now();
      prepared = await prepare(contender, task, instruments);
      await driver.run(1);
      const opened: Omit<Opened, "peakBytes"> = {
        version: contender.version,
        startMs: started - before,
        firstResultMs: performance.now() - started,
        details: prepared.details ?? null,
      };
      await driver.run(1);
      return { ...opened, peakBytes: counts.peakBytes };
    },

    async run(calls) {
      const task = current();
      const start = performance.now();
      for (let i = 0; i < calls; i++) {
        const enqueued = task.call();
        if (enqueued) await enqueued;
      }
      await task.flush?.();
      await instruments.done();
      return performance.now() - start;
    },

    async counts(): Promise<Counts> {
      const { dispatches, submits, liveBytes, peakBytes } = counts;
      return { dispatches, submits, liveBytes, peakBytes };
    },

    async restart(calls) {
      await current().restart?.();
      await driver.run(calls);
    },

    async read(rows, width) {
      const output = await current().read();
      const values = rows.flatMap((row) => [...output.subarray(row * width, (row + 1) * width)]);
      const notFinite = output.reduce((n, value) => (Number.isFinite(value) ? n : n + 1), 0);
      return { values, length: output.length, notFinite, complaints: instruments.complaints.slice(0, 1) };
    },

    async kernels(rounds) {
      const task = current();
      const dispatches = await instruments.record(async () => {
        await task.call();
        await task.flush?.();
      });
      return timeDispatches(dispatches, rounds);
    },
  };
  globalThis.contender = driver;
}

/** "moments" is the layer with all other kernels left out: its dispatches are recorded from one call and then recorded again without the rest. */
async function prepare(contender: Contender, task: Task, instruments: Instrument): Promise<Prepared> {
  if (task.kind !== "moments") return contender.prepare(task);
  const layer = await contender.prepare({ ...task, kind: "layer" });
  const all = await instruments.record(() => layer.call());
  const stage = all.filter((dispatch) => ["moments", "merge_moments"].includes(kernelOf(dispatch)));
  const [first] = stage;
  if (!first) throw new Error(`the layer recorded no kernel called moments, but ${all.map(kernelOf).join(", ")}`);
  const { device } = first;
  return {
    ...layer,
    call() {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      replay(pass, stage);
      pass.end();
      device.queue.submit([encoder.finish()]);
    },
    async read() {
      await layer.call();
      return layer.read();
    },
  };
}

async function describeAdapter(): Promise<AdapterReport> {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new Error("WebGPU found no adapter");
  const { vendor, architecture, device, description, isFallbackAdapter, subgroupMinSize, subgroupMaxSize } = adapter.info;
  return {
    vendor,
    architecture,
    device,
    description,
    software: isFallbackAdapter || /swiftshader|llvmpipe|lavapipe|basic render/i.test(`${architecture} ${description}`),
    features: [...adapter.features].sort(),
    limits: Object.fromEntries(LIMITS.map((limit) => [limit, adapter.limits[limit]])),
    subgroups: [subgroupMinSize, subgroupMaxSize],
  };
}

/** Each dispatch in a pass of its own between two timestamps; medians over the rounds. */
async function timeDispatches(dispatches: readonly RecordedDispatch[], rounds: number): Promise<{ kernel: string; ms: number }[]> {
  const device = dispatches[0]?.device;
  if (!device?.features.has("timestamp-query")) return [];
  const count = 2 * dispatches.length;
  const querySet = device.createQuerySet({ type: "timestamp", count });
  const resolved = device.createBuffer({ size: count * 8, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC });
  const staging = device.createBuffer({ size: count * 8, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const samples: number[][] = dispatches.map(() => []);
  for (let round = 0; round < rounds; round++) {
    const encoder = device.createCommandEncoder();
    dispatches.forEach((dispatch, i) => {
      const pass = encoder.beginComputePass({ timestampWrites: { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 } });
      replay(pass, [dispatch]);
      pass.end();
    });
    encoder.resolveQuerySet(querySet, 0, count, resolved, 0);
    encoder.copyBufferToBuffer(resolved, 0, staging, 0, count * 8);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const times = new BigUint64Array(staging.getMappedRange());
    for (const [i, sample] of samples.entries()) sample.push(Number((times[2 * i + 1] ?? 0n) - (times[2 * i] ?? 0n)) / 1e6);
    staging.unmap();
  }
  for (const resource of [querySet, resolved, staging]) resource.destroy();
  return dispatches.map((dispatch, i) => {
    const sorted = samples[i]?.sort((a, b) => a - b) ?? [];
    return { kernel: kernelOf(dispatch), ms: sorted[sorted.length >> 1] ?? Number.NaN };
  });
}
