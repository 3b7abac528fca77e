import source from "../../shaders/adamw.wgsl?raw";
import { BIND_ALIGNMENT, type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, SETTINGS, STATUS, workgroupsFor } from "./op.ts";

export const adamw = defineKernel({ name: "adamw", source, uses: [STATUS, SETTINGS] });

export interface AdamwArguments {
  /** Whole vec4s, of one size and layout. */
  readonly weights: Slot;
  readonly gradients: Slot;
  readonly first: Slot;
  readonly second: Slot;
  /** What `decayBits` made. */
  readonly decayed: Slot;
  /** What `adamwSettings` made. */
  readonly settings: Slot;
  /** The fields of STATUS in ops/types.ts; nothing changes where it says halted. */
  readonly status: Slot;
  readonly maxBinding: number;
  readonly maxWorkgroups: number;
}

export interface AdamwSettings {
  readonly lr: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;
  /** Infinity for none. */
  readonly clipNorm: number;
  /** The number of the step, from 1 on. */
  readonly step: number;
}

export const SETTINGS_BYTES = 32;

/** What the kernels of a step read (shaders/shared/settings.wgsl), computed in float64. */
export function adamwSettings({ lr, betas: [beta1, beta2], eps, weightDecay, clipNorm, step }: AdamwSettings): Float32Array<ArrayBuffer> {
  const words = new Float32Array(SETTINGS_BYTES / 4);
  const clip = clipNorm === Infinity ? 0 : clipNorm;
  words.set([1 - beta1, 1 - beta2, lr / (1 - beta1 ** step), 1 / Math.sqrt(1 - beta2 ** step), eps, lr * weightDecay, clip]);
  return words;
}

/**
 * One bit for every 4 of `elements` numbers: whether weight decay applies. Ranges are [start, end) in numbers, start a multiple of 4; one that
 * ends inside 4 numbers has all of them.
 */
export function decayBits(ranges: readonly { readonly start: number; readonly end: number }[], elements: number): Uint32Array<ArrayBuffer> {
  const bits = new Uint32Array(Math.max(4, Math.ceil(elements / 128)));
  for (const { start, end } of ranges) {
    if (start % 4 !== 0) throw new Error(`decayBits: a range must start at a multiple of 4, got ${start}`);
    for (let i = start / 4; i < Math.ceil(end / 4); i++) bits[i >>> 5] = (bits[i >>> 5] ?? 0) | (1 << (i & 31));
  }
  return bits;
}

/** A step of AdamW on all weights, in as many dispatches as bindings ask for. */
export function planAdamw(a: AdamwArguments): Step[] {
  const slice = a.maxBinding - (a.maxBinding % BIND_ALIGNMENT);
  const steps: Step[] = [];
  for (let done = 0; done < a.weights.size; done += slice) {
    const size = Math.min(slice, a.weights.size - done);
    const part = ({ buffer, offset }: Slot): Slot => ({ buffer, offset: offset + done, size });
    steps.push({
      kernel: adamw,
      variant: {},
      uniforms: { count4: size / 16, first4: done / 16 },
      slots: {
        settings: a.settings,
        status: a.status,
        decayed: a.decayed,
        gradients: part(a.gradients),
        weights: part(a.weights),
        first: part(a.first),
        second: part(a.second),
      },
      workgroups: workgroupsFor(Math.ceil(size / 16 / WORKGROUP_SIZE), a.maxWorkgroups),
      bytesRead: 4 * size,
      bytesWritten: 3 * size,
    });
  }
  return steps;
}
