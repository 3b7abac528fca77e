import { describe, expect, it } from "vitest";
import { kernels } from "../../src/ops/registry.ts";

const adapter = await navigator.gpu?.requestAdapter();
if (!adapter) throw new Error("the null backend gave no adapter");
const device = await adapter.requestDevice({ requiredFeatures: ["subgroups"] });

describe.each(kernels.map((kernel) => ({ name: kernel.name, kernel })))("$name", ({ kernel }) => {
  it("reads its bindings and uniforms from the source", () => {
    expect(kernel.bindings.map(({ binding }) => binding)).toEqual(kernel.bindings.map((_, i) => i));
    expect(kernel.bindings[0]).toEqual({ name: "shape", binding: 0, type: "uniform" });
    expect(kernel.bindings.filter(({ type }) => type !== "uniform").length).toBeLessThanOrEqual(8);
    expect(kernel.uniforms.size).toBeGreaterThan(0);
  });

  it.each(kernel.variants.map((variant) => ({ key: kernel.key(variant), variant })))(
    "$key compiles on default limits without a message",
    async ({ variant }) => {
      device.pushErrorScope("validation");
      const module = device.createShaderModule({ code: kernel.code(variant) });
      const info = await module.getCompilationInfo();
      expect(info.messages.map((m) => `${kernel.name}.wgsl:${m.lineNum}:${m.linePos} ${m.message}`)).toEqual([]);
      const layout = device.createBindGroupLayout({
        entries: kernel.bindings.map(({ binding, type }) => ({ binding, visibility: 4, buffer: { type } })),
      });
      device.createComputePipeline({
        layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: "main" },
      });
      expect((await device.popErrorScope())?.message).toBeUndefined();
    },
  );
});
