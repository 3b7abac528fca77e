import { planUnpackLinear } from "../ops/unpack_linear.ts";
import type { Gpu } from "../runtime/gpu.ts";
import type { Slot, Step } from "../runtime/kernel.ts";
import { planHomBackward, planHomTranspose, transposedWeights } from "./hom_backward_plan.ts";
import type { HomConfig } from "./hom_config.ts";
import { momentLayout } from "./planner.ts";
import type { Training } from "./training.ts";

/** The layer's Linears: where they lie in the packed matrices, and their channels. */
function linears({ dim, order, orderExpand }: HomConfig) {
  const { stride4 } = momentLayout({ dim, order, orderExpand });
  const moment = { count: order, width: orderExpand * dim };
  const model = { count: 1, width: dim };
  const projections = { packed: "gradProjections", stride: 8 * stride4, inner: model, outer: moment };
  return [
    { name: "ho_proj", firstColumn: 0, ...projections },
    { name: "se_proj", firstColumn: 4 * stride4, ...projections },
    { name: "ag_proj", firstColumn: 0, packed: "gradAg", stride: Math.ceil(dim / 4) * 4, inner: moment, outer: model },
  ];
}

/** Transposed weights, the backward pass, and the gradients in a checkpoint's layout. */
export function homTraining(config: Readonly<Required<HomConfig>>, { tuning, limits }: Pick<Gpu, "tuning" | "limits">): Training {
  const { dim, bias } = config;
  const { stride4 } = momentLayout(config);
  const model = Math.ceil(dim / 4) * 4;
  const unpack = linears(config).map(({ name, packed, stride, inner, outer, firstColumn }): Step => {
    const [rows, columns] = [inner.count * inner.width, outer.count * outer.width];
    const packedBytes = (inner.count * Math.ceil(inner.width / 4) * 4 + 1) * stride * 4;
    const ofBias: Slot = bias ? { buffer: `${name}.bias`, offset: 0, size: columns * 4 } : { buffer: "unused", offset: 0, size: 16 };
    return planUnpackLinear({
      packed: { buffer: packed, offset: 0, size: packedBytes },
      stride,
      firstColumn,
      inner,
      outer,
      weight: { buffer: `${name}.weight`, offset: 0, size: columns * rows * 4 },
      bias: ofBias,
      hasBias: bias,
      maxWorkgroups: limits.maxComputeWorkgroupsPerDimension,
    });
  });
  const parameters = Object.fromEntries(
    linears(config).flatMap(({ name, inner, outer }) => {
      const columns = outer.count * outer.width;
      return [[`${name}.weight`, [columns, inner.count * inner.width]] as const, ...(bias ? [[`${name}.bias`, [columns]] as const] : [])];
    }),
  );
  return {
    parameters,
    passing: { gradProjections: (model + 1) * 8 * stride4 * 4, gradAg: (4 * stride4 + 1) * model * 4, ...transposedWeights(config).bytes },
    plan: (call) => {
      const { steps, scratch } = planHomBackward(config, tuning, limits, { ...call, bias });
      return { steps: [...planHomTranspose(config, limits), ...steps, ...unpack], scratch };
    },
  };
}
