import { execFile } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import ts from "typescript-5.9";
import { build, type Rolldown } from "vite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = join(import.meta.dirname, "../..");
const execute = promisify(execFile);

/** A folder with nothing but the packed package, and one that has its optional peer too. */
let bare: string;
let withDawn: string;

beforeAll(async () => {
  if (!existsSync(join(root, "dist/index.js"))) throw new Error("dist is missing: run `npm run build` first");
  bare = mkdtempSync(join(tmpdir(), "homm-webgpu-bare-"));
  withDawn = mkdtempSync(join(tmpdir(), "homm-webgpu-dawn-"));
  const shell = process.platform === "win32";
  const { stdout } = await execute("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", bare], { cwd: root, shell });
  const tarball = join(bare, JSON.parse(stdout)[0].filename);
  for (const folder of [bare, withDawn]) {
    writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
    for (const file of readdirSync(import.meta.dirname).filter((name) => name.endsWith(".mjs"))) {
      copyFileSync(join(import.meta.dirname, file), join(folder, file));
    }
    await execute("npm", ["install", tarball, "--offline", "--no-audit", "--no-fund", "--ignore-scripts"], { cwd: folder, shell });
  }
  symlinkSync(join(root, "node_modules/webgpu"), join(withDawn, "node_modules/webgpu"), "junction");
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

const kibibytesOf = (code: string) => gzipSync(code, { level: 9 }).length / 1024;
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
    const exported = await runIn(bare, "import-all.mjs");
    expect(exported).toEqual({
      "homm-webgpu": expect.arrayContaining(["HomLayer", "Tensor", "requestGpu", "parseSafetensors", "GpuUnavailableError"]),
      "homm-webgpu/models": expect.arrayContaining(["Hlm"]),
      "homm-webgpu/train": expect.arrayContaining(["HlmTrainer", "train", "BatchSampler"]),
      "homm-webgpu/inference": ["HomLayer"],
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
});

describe("on a page", () => {
  it.each([
    ["the core", `export * from "homm-webgpu";`, 40],
    ["one layer", `export { requestGpu, Tensor, HomLayer } from "homm-webgpu";`, 32],
    [
      "the rivals",
      `export { requestGpu, Tensor } from "homm-webgpu"; export { AttentionLayer, LinearAttentionLayer, drawFeatures } from "homm-webgpu/baselines";`,
      34,
    ],
    ["the language model", `export { requestGpu, fetchSafetensors } from "homm-webgpu"; export { Hlm } from "homm-webgpu/models";`, 45],
    ["the polynomial mixer", `export { requestGpu, Tensor } from "homm-webgpu"; export { PomLayer } from "homm-webgpu/pom";`, 45],
    ["training", `export { requestGpu } from "homm-webgpu"; export { HlmTrainer, train, BatchSampler } from "homm-webgpu/train";`, 80],
  ])("%s stays under its weight", async (_name, program, limit) => {
    const size = kibibytesOf(await bundle(program));
    expect(size).toBeLessThan(limit);
    expect(size).toBeGreaterThan(1);
  });

  it("what is not used is left out", async () => {
    const code = await bundle(`export { parseSafetensors } from "homm-webgpu";`);
    expect(code).not.toContain("@compute");
    expect(code).not.toContain("createShaderModule");
    expect(kibibytesOf(code)).toBeLessThan(6);
    const costs = await bundle(`export { flops, matchFlops } from "homm-webgpu/baselines";`);
    expect(costs).not.toContain("@compute");
    expect(kibibytesOf(costs)).toBeLessThan(4);
  });
});
