import { parseWgsl, validate, writeSpirv } from "naga-wasm";
import { describe, expect, it } from "vitest";
import { bareWgsl, wgslPacker } from "../../scripts/wgsl.mjs";
import { kernels } from "../../src/ops/registry.ts";
import { packedKernels } from "../support/packed_kernels.ts";

const adapter = await navigator.gpu?.requestAdapter();
if (!adapter) throw new Error("the null backend gave no adapter");
const device = await adapter.requestDevice({ requiredFeatures: ["subgroups"] });
const packed = await packedKernels();

/** One variant of every choice that a kernel has. */
function everyChoice<V extends object>(variants: readonly V[]): V[] {
  const seen = new Set<string>();
  return variants.filter((variant) => {
    const choices = Object.entries(variant).map(([key, value]) => `${key} ${typeof value === "object" ? value.name : value}`);
    const fresh = choices.length === 0 || choices.some((choice) => !seen.has(choice));
    for (const choice of choices) seen.add(choice);
    return fresh;
  });
}

describe("shaders as they are bundled", () => {
  it.each(packed.map((kernel, i) => ({ name: kernel.name, kernel, source: kernels[i] })))(
    "$name compiles, line by line the same, and tells the host what its source does",
    async ({ kernel, source }) => {
      for (const variant of everyChoice(kernel.variants)) {
        const code = kernel.code(variant);
        expect(code.split("\n")).toHaveLength(source?.code(variant).split("\n").length ?? 0);
        // The directives of a tile stand before the first line.
        expect(code.slice(code.indexOf("\n"))).not.toMatch(/\/\/|^ | $/m);
        const info = await device.createShaderModule({ code }).getCompilationInfo();
        expect(info.messages.map((m) => `${kernel.key(variant)}:${m.lineNum}:${m.linePos} ${m.message}`)).toEqual([]);
      }
      expect(kernel.bindings).toEqual(source?.bindings);
      expect([...kernel.uniforms]).toEqual([...(source?.uniforms ?? [])]);
    },
  );

  it.each(packed.map((kernel, i) => ({ name: kernel.name, kernel, source: kernels[i] })))(
    "$name comes to the same instructions",
    ({ kernel, source }) => {
      // Naga has no quads.
      const portable = kernel.variants.filter(({ tile }) => tile !== "16x8_quads");
      const instructions = (code = "") => {
        const module = parseWgsl(code);
        return writeSpirv(module, validate(module));
      };
      for (const variant of everyChoice(portable)) {
        // An expansion carries its files, which are packed here and not there.
        const same = source?.variants[kernel.variants.indexOf(variant)];
        expect(instructions(kernel.code(variant)), kernel.key(variant)).toEqual(instructions(same && source?.code(same)));
      }
    },
  );

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

describe("short names", () => {
  const packOne = (source: string) => wgslPacker([source])(source);

  it.each([
    ["of the module and of functions", "fn twice(value: f32) -> f32 {return 2.0 * value; }", "fn aa(a:f32)->f32{return 2.0*a;}"],
    ["of members, not of a vector's components", "struct Two { one: vec2f, x: f32 }", "struct aa{c:vec2f,x:f32}"],
    ["not of the entry, bindings, uniforms", "struct Shape { n: u32, } @group(0) @binding(0) var<uniform> shape: Shape;", undefined],
    [
      "not where a name of the language is meant",
      "fn f(sign: f32) -> f32 {return sign; } fn g() -> f32 {return sign(1.0); }",
      "fn aa(sign:f32)->f32{return sign;} fn ab()->f32{return sign(1.0);}",
    ],
    [
      "the same for a local name and a function that it hides",
      "fn size() -> u32 {return 1u; } fn main() {let size = size(); }",
      "fn aa()->u32{return 1u;} fn main(){let aa=aa();}",
    ],
    [
      "not of attributes and built-in values",
      "fn main(@builtin(local_invocation_id) local_invocation_id: vec3u) {_ = local_invocation_id.x; }",
      "fn main(@builtin(local_invocation_id)a:vec3u){_=a.x;}",
    ],
    ["that are no numbers' ends", "fn f() {let exponent = 1e-3f; let u = 0x1fu; }", "fn aa(){let a=1e-3f;let b=0x1fu;}"],
  ])("%s", (_what, source, expected = bareWgsl(source)) => {
    expect(packOne(source)).toBe(expected);
  });

  it("are the same in files that are compiled together, and differ from every local name there", () => {
    const [kernel = "", shared = ""] = [
      "fn main() {let a = half_of(1.0); }",
      "fn half_of(value: f32) -> f32 {let half = 0.5; return half * value; }",
    ];
    const pack = wgslPacker([kernel, shared]);
    expect([pack(kernel), pack(shared)]).toEqual(["fn main(){let a=aa(1.0);}", "fn aa(b:f32)->f32{let a=0.5;return a*b;}"]);
  });
});
