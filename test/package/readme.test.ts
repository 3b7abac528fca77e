import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = join(import.meta.dirname, "../..");
const execute = promisify(execFile);
const readme = readFileSync(join(root, "README.md"), "utf8");
const examples = [...readme.matchAll(/^```js\n(.*?)^```$/gms)].map(([, code]) => code ?? "");
const [programs, fragments] = [true, false].map((whole) => examples.filter((code) => code.includes("import ") === whole)) as [string[], string[]];

/** A user's folder: the built package and Dawn are installed in it. */
let folder: string;

beforeAll(() => {
  if (!existsSync(join(root, "dist/index.js"))) throw new Error("dist is missing: run `npm run build` first");
  folder = mkdtempSync(join(tmpdir(), "homm-webgpu-readme-"));
  writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
  mkdirSync(join(folder, "node_modules"));
  symlinkSync(root, join(folder, "node_modules/homm-webgpu"), "junction");
  symlinkSync(join(root, "node_modules/webgpu"), join(folder, "node_modules/webgpu"), "junction");
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Runs a program as a user would. One that does not end by itself fails. */
async function run(program: string): Promise<string> {
  const file = join(folder, "example.mjs");
  writeFileSync(file, program);
  const { stdout } = await execute(process.execPath, [file], { cwd: root, timeout: 60_000 });
  return stdout;
}

/** The example without imports that has this in it. */
function fragment(text: string): string {
  const found = fragments.filter((code) => code.includes(text));
  if (found.length !== 1) throw new Error(`README.md has ${found.length} fragments with ${text}`);
  return found[0] ?? "";
}

/** The rows of the table whose header starts with this cell. */
function table(firstCell: string): string[][] {
  const lines = readme.split("\n");
  const header = lines.findIndex((line) => line.startsWith(`| ${firstCell} |`));
  const end = lines.findIndex((line, i) => i > header && !line.startsWith("|"));
  if (header === -1) throw new Error(`README.md has no table that starts with ${firstCell}`);
  return lines.slice(header + 2, end).map((line) =>
    line
      .slice(1, -1)
      .split("|")
      .map((cell) => cell.trim()),
  );
}

describe("the README's examples", () => {
  it("the layer runs as printed, in 15 lines", async () => {
    expect(programs[0]?.trimEnd().split("\n").length).toBeLessThanOrEqual(15);
    const output = await run(programs[0]!);
    expect(output).toContain("[ 1, 1000, 64 ]");
    expect(output).toContain("dispatches");
    expect(output).not.toContain("NaN");
  });

  it("the language model runs as printed", async () => {
    expect(programs).toHaveLength(2);
    const text = await run(programs[1]!);
    expect(text).toHaveLength(200);
    expect(text).toMatch(/^[\n !$&',\-.3:;?A-Za-z]+$/);
    expect(text).not.toMatch(/(.)\1{7}/);
  });

  it("the caller's own device, buffer and encoder", async () => {
    const before = `
      import { HomLayer, requestGpu, Tensor } from "homm-webgpu";
      import { requestNodeGpu } from "homm-webgpu/node";
      const own = await requestNodeGpu();
      const { device } = own;
      const config = { dim: 64, order: 2, orderExpand: 1, bias: false };
      const ones = (n) => new Float32Array(n).fill(0.01);
      const params = { "ho_proj.weight": ones(128 * 64), "se_proj.weight": ones(128 * 64), "ag_proj.weight": ones(64 * 128) };
      const buffer = device.createBuffer({ size: 4 * 256 * 64, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST });
      device.queue.writeBuffer(buffer, 0, ones(256 * 64));
      const encoder = device.createCommandEncoder();`;
    const after = `
      device.queue.submit([encoder.finish()]);
      console.log(JSON.stringify([output.shape, [...new Set(await output.read())].length]));
      shared.destroy();
      // The device is still the caller's.
      const error = await (device.pushErrorScope("validation"), device.createBuffer({ size: 16, usage: GPUBufferUsage.STORAGE }), device.popErrorScope());
      console.log(error === null);
      own.destroy();`;
    expect(await run([before, fragment("requestGpu({ device })"), after].join("\n"))).toBe("[[1,256,64],1]\ntrue\n");
  });

  it("the stream", async () => {
    const before = `
      import { HomLayer, Tensor } from "homm-webgpu";
      import { requestNodeGpu } from "homm-webgpu/node";
      const gpu = await requestNodeGpu();
      const ones = (n) => new Float32Array(n).fill(0.01);
      const params = { "ho_proj.weight": ones(128 * 64), "se_proj.weight": ones(128 * 64), "ag_proj.weight": ones(64 * 128) };
      const hom = await HomLayer.create(gpu, { dim: 64, order: 2, orderExpand: 1, bias: false }, params);
      const tokens = (n) => Tensor.from(gpu, ones(n * 64), [1, n, 64]);
      const [context, question, token] = [tokens(100), tokens(3), tokens(1)];`;
    const after = `
      console.log(JSON.stringify([state.count, answer.shape, next.shape, Math.sign((await next.read())[0])]));
      gpu.destroy();`;
    expect(await run([before, fragment("createState"), after].join("\n"))).toBe("[[101],[1,3,64],[1,1,64],1]\n");
  });

  it("are all among these", () => {
    expect([programs.length, fragments.length]).toEqual([2, 2]);
  });
});

describe("the README's tables", () => {
  it("give the costs that plan() computes", async () => {
    const rows = JSON.parse(
      await run(`
        import { HomLayer } from "homm-webgpu";
        import { requestNodeGpu } from "homm-webgpu/node";
        const gpu = await requestNodeGpu({ tuning: { blockTokens: 32, prefixBlockTokens: 16, fusedSelectMaxDim: 128 } });
        const [dim, order, orderExpand] = [512, 2, 2];
        const zeros = (n) => new Float32Array(n);
        const M = order * orderExpand * dim;
        const params = { "ho_proj.weight": zeros(M * dim), "se_proj.weight": zeros(M * dim), "ag_proj.weight": zeros(dim * M) };
        const hom = await HomLayer.create(gpu, { dim, order, orderExpand, bias: false }, params);
        const rounded = (number, digits) => number.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
        const giga = (flops) => rounded(flops / 1e9, 1) + " G";
        const mebi = (bytes) => rounded(bytes / 2 ** 20, 0) + " MiB";
        const rows = [1024, 8192, 32768].flatMap((N) => [undefined, "causal"].map((mask) => {
          const plan = hom.plan({ batch: 1, queryLength: N, mask });
          return [
            rounded(N, 0), mask ?? "none", giga(plan.flops), mebi(plan.bytesRead), mebi(plan.bytesWritten), mebi(plan.scratchBytes),
            String(plan.dispatches.length), giga(8 * N * dim ** 2 + (mask ? 2 : 4) * N ** 2 * dim), mebi(4 * N ** 2),
          ];
        }));
        console.log(JSON.stringify(rows));
        gpu.destroy();`),
    );
    // To update the README, copy these rows.
    expect(table("N = T").map((row) => `| ${row.join(" | ")} |`)).toEqual(rows.map((row: string[]) => `| ${row.join(" | ")} |`));
  });

  it("name every mask, every error and every entry", async () => {
    const facts = JSON.parse(
      await run(`
        import * as core from "homm-webgpu";
        import { readFile } from "node:fs/promises";
        import { requestNodeGpu } from "homm-webgpu/node";
        const gpu = await requestNodeGpu();
        const zeros = new Float32Array(4);
        const layer = await core.HomLayer.create(gpu, { dim: 2, order: 1, orderExpand: 1, bias: false }, { "ho_proj.weight": zeros, "se_proj.weight": zeros, "ag_proj.weight": zeros });
        let message = "";
        try { layer.plan({ batch: 1, queryLength: 1, mask: {} }); } catch (error) { message = error.message; }
        const errors = Object.keys(core).filter((name) => name.endsWith("Error"));
        const { exports } = JSON.parse(await readFile(new URL(import.meta.resolve("homm-webgpu/package.json")), "utf8"));
        console.log(JSON.stringify({ message, errors, exports: Object.keys(exports) }));
        gpu.destroy();`),
    );
    const masks = /one of ([\w, ]+), got/.exec(facts.message)?.[1]?.split(", ") ?? [];
    expect(masks.length).toBeGreaterThan(4);
    expect(
      table("mask")
        .map(([cell]) => /\w+/.exec(cell ?? "")?.[0])
        .sort(),
    ).toEqual(["none", "causal", ...masks].sort());
    expect(
      table("error")
        .map(([cell]) => cell?.replaceAll("`", ""))
        .sort(),
    ).toEqual(["TypeError", "RangeError", ...facts.errors].sort());
    const entries = facts.exports.filter((name: string) => name !== "./package.json").map((name: string) => join("homm-webgpu", name));
    expect(
      table("import")
        .map(([cell]) => cell?.replaceAll("`", ""))
        .sort(),
    ).toEqual(entries.sort());
  });
});
