import { execFile } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import ts from "typescript-5.9";
import { build, type Rolldown } from "vite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { install, pack } from "../support/installed.ts";

const root = join(import.meta.dirname, "../..");
const execute = promisify(execFile);

/** A folder with nothing but the packed package, and one that has its optional peer too. */
let bare: string;
let withDawn: string;

beforeAll(async () => {
  bare = mkdtempSync(join(tmpdir(), "homm-webgpu-bare-"));
  withDawn = mkdtempSync(join(tmpdir(), "homm-webgpu-dawn-"));
  const tarball = await pack(bare);
  await install(bare, tarball);
  await install(withDawn, tarball, ["webgpu"]);
  for (const folder of [bare, withDawn]) {
    for (const file of readdirSync(import.meta.dirname).filter((name) => name.endsWith(".mjs"))) {
      copyFileSync(join(import.meta.dirname, file), join(folder, file));
    }
  }
});

afterAll(() => {
  for (const folder of [bare, withDawn]) rmSync(folder, { recursive: true, force: true });
});

/** Runs a program and parses what it prints. A program that does not end by itself fails. */
async function runIn(folder: string, program: string): Promise<unknown> {
  const { stdout } = await execute(process.execPath, [program], { cwd: folder, timeout: 60_000 });
  return JSON.parse(stdout);
}

/** Bundles a program as for a page, minified. */
async function bundle(program: string): Promise<string> {
  const input = join(bare, "entry.js");
  writeFileSync(input, program);
  const output = (await build({
    root: bare,
    configFile: false,
    logLevel: "silent",
    build: {
      write: false,
      target: "es2023",
      modulePreload: false,
      rolldownOptions: { input, preserveEntrySignatures: "strict" },
    },
  })) as Rolldown.RolldownOutput;
  return output.output.map((file) => (file.type === "chunk" ? file.code : "")).join("\n");
}

const gzippedBytes = (code: string) => gzipSync(code, { level: 9 }).length;
/** The kernels in a bundle. */
const kernelsIn = (code: string) => [...code.matchAll(/name: ?[`"'](\w+)[`"'], ?source/g)].map(([, name = ""]) => name).sort();
const installed = (path = "") => join(bare, "node_modules/homm-webgpu", path);

describe("the packed package", () => {
  it("has what the exports map names", () => {
    const manifest = JSON.parse(readFileSync(installed("package.json"), "utf8"));
    const targets = Object.values<Record<string, string> | string>(manifest.exports).flatMap((target) =>
      typeof target === "string" ? [target] : Object.values(target),
    );
    expect(targets.filter((target) => !target.includes("*") && !existsSync(installed(target)))).toEqual([]);
  });

  it("ships every shader and no sources, tests or tools", () => {
    const shaders = (folder: string) => readdirSync(folder, { recursive: true, encoding: "utf8" }).sort();
    expect(shaders(installed("shaders"))).toEqual(shaders(join(root, "shaders")));
    expect(readdirSync(installed()).sort()).toEqual(["CHANGELOG.md", "LICENSE", "README.md", "dist", "package.json", "shaders"]);
  });

  it("has no dependency", () => {
    expect(readdirSync(join(bare, "node_modules")).filter((name) => !name.startsWith("."))).toEqual(["homm-webgpu"]);
  });

  it("imports a package only in the Node entry, and loads or evaluates no code at run time elsewhere", () => {
    const files = readdirSync(installed("dist"), { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".js") && file !== "node.js");
    expect(files).toContain("index.js");
    for (const file of files) {
      const code = readFileSync(installed(join("dist", file)), "utf8");
      const packages = ts.preProcessFile(code, true, true).importedFiles.filter(({ fileName }) => !fileName.startsWith("."));
      expect(packages, file).toEqual([]);
      expect(code, file).not.toMatch(/\bimport\(|\beval\(|new Function\(/);
    }
  });

  it("keeps its sources in the source maps", () => {
    const map = JSON.parse(readFileSync(installed("dist/index.js.map"), "utf8"));
    expect(map.sourcesContent).toHaveLength(map.sources.length);
    expect(map.sourcesContent).not.toContain(null);
  });
});

describe("in plain Node", () => {
  it("every entry imports and touches no browser or GPU global", async () => {
    const { exported, globals } = (await runIn(bare, "import-all.mjs")) as { exported: unknown; globals: string[] };
    expect(globals, "new globals").toEqual([]);
    expect(exported).toEqual({
      "homm-webgpu": expect.arrayContaining(["HomLayer", "Tensor", "requestGpu", "parseSafetensors", "GpuUnavailableError"]),
      "homm-webgpu/models": expect.arrayContaining(["Hlm"]),
      "homm-webgpu/train": expect.arrayContaining(["HlmTrainer", "train", "BatchSampler"]),
      "homm-webgpu/inference": ["HomLayer", "PomLayer"],
      "homm-webgpu/minimal": expect.arrayContaining(["HomLayer", "Tensor", "requestGpu"]),
      "homm-webgpu/pom": expect.arrayContaining(["PomLayer", "PomState"]),
      "homm-webgpu/baselines": expect.arrayContaining(["AttentionLayer", "LinearAttentionLayer", "flops", "matchFlops"]),
      "homm-webgpu/reference": expect.arrayContaining(["homReference"]),
      "homm-webgpu/node": expect.arrayContaining(["requestNodeGpu"]),
    });
  });

  it("the shaders resolve by name", async () => {
    writeFileSync(join(bare, "resolve.mjs"), `console.log(JSON.stringify(import.meta.resolve("homm-webgpu/shaders/moments.wgsl")));`);
    const url = new URL((await runIn(bare, "resolve.mjs")) as string);
    expect(readFileSync(url, "utf8")).toContain("@compute");
  });

  it("requestNodeGpu says what to install where Dawn is missing", async () => {
    const program = `import { requestNodeGpu } from "homm-webgpu/node";
      const error = await requestNodeGpu().catch((error) => error);
      console.log(JSON.stringify({ name: error.name, message: error.message }));`;
    writeFileSync(join(bare, "no-dawn.mjs"), program);
    expect(await runIn(bare, "no-dawn.mjs")).toEqual({ name: "GpuUnavailableError", message: expect.stringContaining("npm install webgpu") });
  });

  it("a layer runs on Dawn, agrees with its float64 twin and lets the process end", async () => {
    const { relativeL2, ...rest } = (await runIn(withDawn, "one-layer.mjs")) as { relativeL2: number };
    expect(rest).toEqual({ shape: [2, 33, 12], adapter: expect.any(String) });
    expect(relativeL2).toBeLessThan(2e-6);
  });

  it("the minimal layer computes the same as the whole one, streams, and refuses what it leaves out", async () => {
    const { refused, ...same } = (await runIn(withDawn, "minimal.mjs")) as { refused: string[] };
    expect(same).toEqual({ unmasked: true, causal: true, appended: true, stepped: true, decoded: true, cloned: true });
    expect(refused).toHaveLength(12);
    for (const message of refused)
      expect(message).toMatch(/^TypeError \w+\.\w+: the import must be of the whole package, got homm-webgpu\/minimal; /);
  });
});

/** What a layer needs to run and to stream, and nothing of training, models or other layers. */
const LAYER_KERNELS = [
  "combine_states",
  "decay_moments",
  "gate",
  "linear",
  "mask_moments",
  "merge_moments",
  "moments",
  "prefix_moments",
  "scan_moments",
  "scan_segments",
  "select",
  "state_totals",
  "step",
  "update_state",
];
const GRADIENT_KERNELS = [
  "decay_backward",
  "gate_backward",
  "merge_gradients",
  "moments_backward",
  "scan_gradients",
  "sum_gradients",
  "transpose",
  "unpack_linear",
  "weight_gradient",
];

describe("on a page", () => {
  const core = `export { requestGpu, Tensor } from "homm-webgpu";`;
  const all = (...entries: string[]) => entries.map((entry, i) => `export * as entry${i} from "homm-webgpu${entry}";`).join("\n");
  /** Every entry that a page can use; `/minimal` is a smaller build of one of them, `/node` needs Node, `/reference` is for tests. The baselines are not this package's models but what they are compared with. */
  const every = all("", "/inference", "/models", "/train", "/pom");
  const everyAndBaselines = all("", "/inference", "/models", "/train", "/pom", "/baselines");

  /** Limits in bytes after minification and gzip, a percent above what they are now: those of the README's table, and one more. */
  const limits = new Map(
    [...readFileSync(join(root, "README.md"), "utf8").matchAll(/^\| (`[^|]*) \| (\d+\.\d) \|$/gm)].map(([, name = "", kB]) => [
      name,
      1000 * Number(kB),
    ]),
  );
  limits.set("everything of the core", 55_800);

  it.each([
    ["`HomLayer` of `homm-webgpu/minimal`: forward, causal, streams", `export { requestGpu, Tensor, HomLayer } from "homm-webgpu/minimal";`],
    ["`HomLayer` of `homm-webgpu/inference`: forward, every mask, streams", `${core} export { HomLayer } from "homm-webgpu/inference";`],
    ["`HomLayer` of `homm-webgpu`: gradients as well", `${core} export { HomLayer } from "homm-webgpu";`],
    ["`Hlm`, `fetchSafetensors`", `export { requestGpu, fetchSafetensors } from "homm-webgpu"; export { Hlm } from "homm-webgpu/models";`],
    ["`PomLayer` of `homm-webgpu/inference`", `${core} export { PomLayer } from "homm-webgpu/inference";`],
    ["`PomLayer` of `homm-webgpu/pom`: gradients as well", `${core} export { PomLayer } from "homm-webgpu/pom";`],
    ["`HlmTrainer`, `train`, `BatchSampler`", `${core} export { HlmTrainer, train, BatchSampler } from "homm-webgpu/train";`],
    [
      "`AttentionLayer`, `LinearAttentionLayer`, `drawFeatures`",
      `${core} export { AttentionLayer, LinearAttentionLayer, drawFeatures } from "homm-webgpu/baselines";`,
    ],
    ["`parseSafetensors`", `export { parseSafetensors } from "homm-webgpu";`],
    ["`flops`, `matchFlops`", `export { flops, matchFlops } from "homm-webgpu/baselines";`],
    ["everything of the core", `export * from "homm-webgpu";`],
    ["`homm-webgpu`, `/inference`, `/models`, `/train`, `/pom`: everything", every],
    ["`/baselines`, and all of these", everyAndBaselines],
  ])("%s: stays under its weight", async (name, program) => {
    const limit = limits.get(name) ?? 0;
    const bytes = gzippedBytes(await bundle(program));
    expect(bytes).toBeLessThan(limit);
    // A limit that is far off says nothing.
    expect(bytes).toBeGreaterThan(limit / 1.1);
  });

  it("the README's table has no other rows", () => {
    expect(limits.size).toBe(13);
  });

  it("the layer alone carries no training, no model and no other layer", async () => {
    const code = await bundle(`export { HomLayer } from "homm-webgpu/inference";`);
    expect(kernelsIn(code)).toEqual(LAYER_KERNELS);
    expect(code).not.toMatch(/forwardForTraining|AdamW|adamw|cross_entropy|token_emb|PomLayer|AttentionLayer/);
  });

  it("the layer of the core carries its gradients, but no trainer, no model and no other layer", async () => {
    const code = await bundle(`export { HomLayer } from "homm-webgpu";`);
    expect(kernelsIn(code)).toEqual([...LAYER_KERNELS, ...GRADIENT_KERNELS].sort());
    expect(code).not.toMatch(/AdamW|adamw|cross_entropy|token_emb|PomLayer|AttentionLayer/);
  });

  it("models carry their gradients only where they are asked for", async () => {
    const program = (entry: string) => `export { HomVision, HomGnn, Dih } from "homm-webgpu/${entry}";`;
    const backward = (code: string) => kernelsIn(code).filter((name) => GRADIENT_KERNELS.includes(name));
    expect(backward(await bundle(program("models")))).toEqual([]);
    expect(backward(await bundle(program("train"))).sort()).toEqual([...GRADIENT_KERNELS].sort());
  });

  it("what needs no GPU carries no shader", async () => {
    for (const program of [`export { parseSafetensors } from "homm-webgpu";`, `export { flops, matchFlops } from "homm-webgpu/baselines";`]) {
      const code = await bundle(program);
      expect(code).not.toContain("@compute");
      expect(code).not.toContain("createShaderModule");
    }
  });

  it("nothing is left of an import that is not used: no entry does anything while it is imported", async () => {
    for (const entry of Object.keys(JSON.parse(readFileSync(installed("package.json"), "utf8")).exports)) {
      if (/shaders|package\.json|node/.test(entry)) continue;
      const code = await bundle(`import * as unused from "${entry.replace(".", "homm-webgpu")}";`);
      expect(code.trim(), entry).toBe("");
    }
  });
});
