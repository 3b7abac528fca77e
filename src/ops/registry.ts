import type { Kernel } from "../runtime/kernel.ts";
import { embed } from "./embed.ts";
import { gate } from "./gate.ts";
import { linear } from "./linear.ts";
import { maskMoments } from "./mask_moments.ts";
import { mergeMoments } from "./merge_moments.ts";
import { moments } from "./moments.ts";
import { prefixMoments } from "./prefix_moments.ts";
import { scanMoments } from "./scan_moments.ts";
import { scanSegments } from "./scan_segments.ts";
import { select } from "./select.ts";

/** Every kernel, in the order of the forward pass; the compile test and the bench walk this list. */
export const kernels: readonly Kernel[] = [embed, moments, mergeMoments, prefixMoments, scanMoments, scanSegments, maskMoments, gate, select, linear];
