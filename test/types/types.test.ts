import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = join(import.meta.dirname, "../..");
const compilers = { "TypeScript 5.9": "typescript-5.9", "TypeScript 7.0": "typescript" };
/** What a program in a browser and one in Node have besides this package. */
const environments = {
  browser: { lib: ["es2022", "dom"], types: [] },
  node: { lib: ["es2023"], types: ["node"] },
};

type Case = {
  compiler: keyof typeof compilers;
  webgpuTypes: boolean;
  environment: keyof typeof environments;
  moduleResolution: "bundler" | "nodenext";
};

const cases: Case[] = [];
for (const compiler of ["TypeScript 5.9", "TypeScript 7.0"] as const) {
  for (const moduleResolution of ["bundler", "nodenext"] as const) {
    cases.push({ compiler, moduleResolution, environment: "browser", webgpuTypes: false });
    cases.push({ compiler, moduleResolution, environment: "browser", webgpuTypes: true });
    // @webgpu/types needs lib.dom, so a program without it has no WebGPU types.
    cases.push({ compiler, moduleResolution, environment: "node", webgpuTypes: false });
  }
}

let folder: string;

beforeAll(() => {
  if (!existsSync(join(root, "dist/index.d.ts"))) throw new Error("dist has no declarations: run `npm run build` first");
  // Outside of the repository, where only what is copied here can be found.
  folder = mkdtempSync(join(tmpdir(), "homm-webgpu-types-"));
  writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
  for (const file of ["package.json", "dist"]) cpSync(join(root, file), join(folder, "node_modules/homm-webgpu", file), { recursive: true });
  for (const name of ["@webgpu/types", "@types/node", "undici-types"]) {
    cpSync(join(root, "node_modules", name), join(folder, "node_modules", name), { recursive: true });
  }
  cpSync(join(import.meta.dirname, "consumers"), folder, { recursive: true });
});

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

async function compile({ compiler, webgpuTypes, environment, moduleResolution }: Case, program: string): Promise<string[]> {
  const { lib, types } = environments[environment];
  const config = join(folder, `tsconfig.${expect.getState().currentTestName?.replaceAll(/\W+/g, "-")}.json`);
  const compilerOptions = {
    target: "es2022",
    lib,
    types: [...types, ...(webgpuTypes ? ["@webgpu/types"] : [])],
    module: moduleResolution === "nodenext" ? "nodenext" : "esnext",
    moduleResolution,
    strict: true,
    exactOptionalPropertyTypes: true,
    skipLibCheck: false,
    noEmit: true,
  };
  writeFileSync(config, JSON.stringify({ compilerOptions, files: [program] }));
  const tsc = join(root, "node_modules", compilers[compiler], "bin/tsc");
  const output = await new Promise<string>((resolve) => {
    execFile(process.execPath, [tsc, "-p", config, "--pretty", "false"], { cwd: folder, maxBuffer: 1 << 26 }, (_error, stdout, stderr) => {
      resolve(stdout + stderr);
    });
  });
  return output.split("\n").filter((line) => line.includes("error TS"));
}

/** TypeScript 6+ and @webgpu/types declare the same names; no program has both under `skipLibCheck: false` without these errors. */
const duplicateWebGpu = /(lib\.dom\.d\.ts|@webgpu\/types\/dist\/index\.d\.ts)\(\d+,\d+\): error/;

const nameOf = (row: Case) => `${row.compiler}, ${row.moduleResolution}, ${row.environment}${row.webgpuTypes ? ", @webgpu/types" : ""}`;

describe.each(cases.map((row) => [nameOf(row), row] as const))("%s", (_name, row) => {
  const libHasWebGpu = row.compiler === "TypeScript 7.0" && row.environment === "browser";
  const isOurs = (error: string) => !(libHasWebGpu && row.webgpuTypes && duplicateWebGpu.test(error));

  it("a program that names no WebGPU type compiles", async () => {
    expect((await compile(row, "without-webgpu.ts")).filter(isOurs)).toEqual([]);
  });

  if (!libHasWebGpu && !row.webgpuTypes) return;
  it("a program sees the real WebGPU types", async () => {
    expect((await compile(row, "with-webgpu.ts")).filter(isOurs)).toEqual([]);
  });
});
