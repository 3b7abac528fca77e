import { planUnpackLinear } from "../ops/unpack_linear.ts";
import type { Gpu } from "../runtime/gpu.ts";
import type { Slot, Step } from "../runtime/kernel.ts";
import type { Shape } from "../runtime/tensor.ts";
import type { Channels } from "./params.ts";
import { planPomBackward, planPomTranspose, pomGradientBytes, pomTransposed } from "./pom_backward_plan.ts";
import { type PomConfig, pomLayout, pomPlanConfig } from "./pom_config.ts";
import type { Training } from "./training.ts";

/** A part of a parameter in a packed gradient. */
interface Part {
  readonly weight: string;
  readonly weightFirst?: number;
  readonly bias?: string | undefined;
  readonly packed: "gradProjections" | "gradGates" | "gradAg" | "gradCoefficients";
  /** Numbers of a row of the packed gradient. */
  readonly stride: number;
  readonly firstColumn?: number;
  readonly inner: Channels;
  readonly outer: Channels;
  readonly inputs?: readonly [number, number];
  readonly outputs?: readonly [number, number];
}

const numbers = (shape: Shape): number => shape.reduce((product, size) => product * size, 1);

/** Transposed weights, the backward pass, and the gradients in a checkpoint's layout. Tables of rotations are constants. */
export function pomTraining(config: Readonly<Required<PomConfig>>, { tuning, limits }: Gpu): Training {
  const { dim, degree, nGroups } = config;
  const { shapes, moment, perGate, grouped } = pomLayout(config);
  const plan = pomPlanConfig(config);
  const gradients = pomGradientBytes(plan);
  const width = moment.count * moment.width;
  const stride = gradients.gradCoefficients / (4 * degree);
  const model = { count: 1, width: dim };
  const plain = nGroups === 1;
  const inputs = dim / nGroups;
  const [po, se] = plain ? ["qc_proj.weight", "qc_proj.weight"] : ["po_proj.weight", "se_proj.weight"];
  const gates = plan.pom.gates?.layout.stride;
  const projected = { packed: "gradProjections", stride: gates === undefined ? 2 * stride : stride, outer: moment, weight: po } as const;
  const ofMoments: Part[] =
    plain || grouped
      ? [{ ...projected, bias: "po_proj.bias", inner: { count: 1, width: inputs } }]
      : Array.from({ length: nGroups }, (_, group) => {
          const outputs = width / nGroups;
          const part = { inputs: [group * inputs, inputs], outputs: [group * outputs, outputs], weightFirst: group * outputs * inputs } as const;
          return { ...projected, ...part, bias: "po_proj.bias", inner: model };
        });
  const ofGates = gates === undefined ? { ...projected, firstColumn: stride } : ({ packed: "gradGates", stride: gates } as const);
  const parts: Part[] = [
    ...ofMoments,
    { ...ofGates, inner: model, outer: perGate, weight: se, weightFirst: plain ? width * dim : 0, bias: plain ? "se_bias" : "se_proj.bias" },
    { packed: "gradAg", stride: Math.ceil(dim / 4) * 4, inner: moment, outer: model, weight: "ag_proj.weight", bias: "ag_proj.bias" },
    { packed: "gradCoefficients", stride, inner: { count: 1, width: degree }, outer: moment, weight: "po_coeff" },
  ];
  const whole = (name: string): Slot => ({ buffer: name, offset: 0, size: numbers(shapes[name] ?? []) * 4 });
  const unpack = parts.map(({ packed, weight, bias, firstColumn = 0, ...part }): Step => {
    const hasBias = bias !== undefined && bias in shapes;
    return planUnpackLinear({
      ...part,
      firstColumn,
      packed: { buffer: packed, offset: 0, size: gradients[packed] ?? 0 },
      weight: whole(weight),
      bias: hasBias ? whole(bias) : { buffer: "unused", offset: 0, size: 16 },
      hasBias,
      maxWorkgroups: limits.maxComputeWorkgroupsPerDimension,
    });
  });
  return {
    parameters: shapes,
    passing: { ...gradients, ...pomTransposed(plan).bytes },
    plan: (call) => {
      const { steps, scratch } = planPomBackward(plan, tuning, limits, call);
      return { steps: [...planPomTranspose(plan, limits), ...steps, ...unpack], scratch };
    },
  };
}
