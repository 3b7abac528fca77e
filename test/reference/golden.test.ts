import { describe, expect, test } from "vitest";
import { homBlock } from "../../src/reference/block.ts";
import { hlmLoss, hlmReference } from "../../src/reference/hlm.ts";
import { homReference } from "../../src/reference/hom.ts";
import { HomStream } from "../../src/reference/stream.ts";
import { expectClose } from "../support/compare.ts";
import { fullMask, goldenCases, hlmGolden, homGolden, loadGolden } from "../support/golden.ts";
import { REFERENCE_GOLDEN } from "../support/tolerances.ts";

const relL2 = REFERENCE_GOLDEN;

describe("the float64 reference gives the golden outputs", async () => {
  test.each(await goldenCases("hom"))("$name", async (entry) => {
    const golden = await loadGolden(entry);
    const { shape: sizes, params, args, expected, outputShape: shape } = homGolden(golden);
    const { ffwExpand: _, ...layer } = sizes;
    expectClose(homReference(layer, params, args), expected, { relL2, what: "y", shape });
    if (args.mask === "causal" || (args.mask && "blockCausal" in args.mask)) {
      const full = fullMask(golden);
      expectClose(homReference(layer, params, { ...args, mask: { full } }), expected, { relL2, what: "y under the stored mask", shape });
    }
  });

  test.each(await goldenCases("hom_stream"))("$name", async (entry) => {
    const golden = await loadGolden(entry);
    const { shape: layer, params, args, expected, outputShape: shape } = homGolden(golden);
    expectClose(homReference(layer, params, args), expected, { relL2, what: "y at once", shape });

    const sums = golden.tensor("out.running_sum");
    const counts = golden.tensor("out.running_count");
    const width = sums.shape[2]!;
    const stream = new HomStream(layer, params);
    const y = new Float64Array(expected.length);
    for (let t = 0; t < args.queryLength; t++) {
      y.set(stream.step(args.query.subarray(t * layer.dim, (t + 1) * layer.dim)), t * layer.dim);
      const what = `running sum after token ${t}`;
      expectClose(stream.sum, (sums.data as Float32Array).subarray(t * width, (t + 1) * width), { relL2, what });
      expect(stream.count[0]).toBe(counts.data[t]);
    }
    expectClose(y, expected, { relL2, what: "y token by token", shape });
  });

  test.each(await goldenCases("hom_layer"))("$name", async (entry) => {
    const { shape: layer, params, args, expected, outputShape: shape } = homGolden(await loadGolden(entry));
    const y = homBlock(layer, params, { up: "ffw.1", down: "ffw.3" }, args);
    expectClose(y, expected, { relL2, what: "y", shape });
  });

  test.each(await goldenCases("hlm"))("$name", async (entry) => {
    const golden = hlmGolden(await loadGolden(entry));
    const { config, weights, tokenIds, batch, posOffset, attentionMask } = golden;
    const logits = hlmReference(config, weights, tokenIds, { batch, posOffset, attentionMask });
    expectClose(logits, golden.logits, { relL2, what: "logits", shape: golden.logitsShape });
    if (golden.loss === undefined) return;
    const loss = hlmLoss(logits, tokenIds, { vocabSize: config.vocabSize, batch, attentionMask });
    expectClose([loss], [golden.loss], { relL2, what: "loss" });
  });
});
