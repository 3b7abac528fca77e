import { parseWgsl, validate, writeHlsl, writeMsl, writeSpirv } from "naga-wasm";
import { describe, expect, it } from "vitest";
import { kernels } from "../../src/ops/registry.ts";

/** Naga is the WGSL compiler of Firefox, Deno and wgpu; the other compile test is Tint's, of Chromium and Dawn. */
describe.each(kernels.map((kernel) => ({ name: kernel.name, kernel })))("$name", ({ kernel }) => {
  const portable = kernel.variants.filter(({ tile }) => tile !== "16x8_quads");

  it.each(portable.map((variant) => ({ key: kernel.key(variant), variant })))(
    "Naga translates $key for Vulkan, Direct3D and Metal",
    ({ variant }) => {
      const module = parseWgsl(kernel.code(variant));
      const info = validate(module);
      expect(writeSpirv(module, info).length).toBeGreaterThan(0);
      expect(writeHlsl(module, info)).toContain("main");
      expect(writeMsl(module, info)).toContain("kernel void");
    },
  );

  it.runIf(portable.length < kernel.variants.length)("the variants with subgroups are the only ones that Naga does not know", () => {
    const quads = kernel.variants.find((variant) => !portable.includes(variant)) ?? {};
    expect(() => parseWgsl(kernel.code(quads))).toThrow(/subgroups/);
  });

  it("Naga refuses what is wrong", () => {
    const broken = kernel.code(kernel.variants[0] ?? {}).replace("fn main(", "fn main(x: Nothing, ");
    expect(() => validate(parseWgsl(broken))).toThrow();
  });
});
