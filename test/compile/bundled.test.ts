import { describe, expect, it } from "vitest";
import { bareWgsl } from "../../scripts/wgsl.mjs";
import { defineKernel } from "../../src/ops/op.ts";
import { kernels } from "../../src/ops/registry.ts";

const adapter = await navigator.gpu?.requestAdapter();
if (!adapter) throw new Error("the null backend gave no adapter");
const device = await adapter.requestDevice({ requiredFeatures: ["subgroups"] });

/** One variant of every choice that a kernel has. */
function everyChoice<V extends object>(variants: readonly V[]): V[] {
  const seen = new Set<string>();
  return variants.filter((variant) => {
    const choices = Object.entries(variant).map(([key, value]) => `${key} ${typeof value === "object" ? JSON.stringify(value) : value}`);
    const fresh = choices.length === 0 || choices.some((choice) => !seen.has(choice));
    for (const choice of choices) seen.add(choice);
    return fresh;
  });
}

describe("shaders as they are bundled", () => {
  it.each(kernels.map((kernel) => [kernel.name, kernel] as const))("%s compiles, line by line the same", async (_name, kernel) => {
    for (const variant of everyChoice(kernel.variants)) {
      const code = kernel.code(variant);
      const bare = bareWgsl(code);
      expect(bare.split("\n")).toHaveLength(code.split("\n").length);
      expect(bare).not.toMatch(/\/\/|^ | $/m);
      const info = await device.createShaderModule({ code: bare }).getCompilationInfo();
      expect(info.messages.map((m) => `${kernel.key(variant)}:${m.lineNum}:${m.linePos} ${m.message}`)).toEqual([]);
    }
    const again = defineKernel({ name: kernel.name, source: bareWgsl(kernel.code(kernel.variants[0] ?? {})) });
    expect(again.bindings).toEqual(kernel.bindings);
    expect([...again.uniforms]).toEqual([...kernel.uniforms]);
  });

  it.each([
    ["  let a = b * (c + 1u); // product", "let a=b*(c+1u);"],
    ["let a = b - -c;", "let a=b - -c;"],
    ["let a = -b;", "let a = -b;"],
    ["return -x;", "return-x;"],
    ["if (a && !b) {", "if(a && !b){"],
    ["var<storage, read_write> y: array<vec4f>;", "var<storage,read_write>y:array<vec4f>;"],
    ["fn f(x: f32) -> f32 { return x; }", "fn f(x:f32)->f32{return x;}"],
  ])("%j becomes %j", (source, bare) => {
    expect(bareWgsl(source)).toBe(bare);
  });
});
