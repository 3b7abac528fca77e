import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { build } from "vite";
import { afterAll, beforeAll, expect, it } from "vitest";
import { inPage, serveFolder } from "../support/browser.ts";
import { install, pack } from "../support/installed.ts";

const root = join(import.meta.dirname, "../..");
const execute = promisify(execFile);
const [example = ""] = [...readFileSync(join(root, "README.md"), "utf8").matchAll(/^```js\n(.*?)^```$/gms)].map(([, code]) => code);

let folder: string;
let tarball: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "homm-webgpu-install-"));
  tarball = await pack(folder);
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("a Node script runs the README's example", async () => {
  const project = join(folder, "script");
  await install(project, tarball, ["webgpu"]);
  writeFileSync(join(project, "example.mjs"), example);
  const { stdout } = await execute(process.execPath, ["example.mjs"], { cwd: project, timeout: 60_000 });
  expect(stdout).toMatch(/\[ 1, 1000, 64 \] Float32Array\(4\) \[\s*(-?[\d.e-]+,?\s*){4}\]\n\{\n {2}dispatches: /);
});

it("an empty Vite app runs it, with the browser's requestGpu", async () => {
  const project = join(folder, "app");
  await install(project, tarball);
  const [imports, inBrowser] = ['import { requestNodeGpu } from "homm-webgpu/node";\n', "await requestGpu();"];
  expect(example).toContain(imports);
  const program = example
    .replace(imports, "")
    .replace("{ HomLayer, Tensor }", "{ HomLayer, requestGpu, Tensor }")
    .replace("await requestNodeGpu();", inBrowser);
  expect(program).toContain(inBrowser);
  writeFileSync(join(project, "main.js"), program);
  writeFileSync(join(project, "index.html"), '<link rel="icon" href="data:,"><script type="module" src="main.js"></script>');
  await build({ root: project, configFile: false, logLevel: "error" });
  const { url, close } = await serveFolder(join(project, "dist"));
  try {
    await inPage(url, async (page) => {
      const lines: unknown[][] = [];
      page.on("console", async (message) => lines.push(await Promise.all(message.args().map((argument) => argument.jsonValue()))));
      await page.reload();
      await expect.poll(() => lines.length, { timeout: 60_000 }).toBe(2);
      const [[, shape, values], [plan]] = lines as [[string, number[], Record<string, number>], [{ dispatches: unknown[] }]];
      expect(shape).toEqual([1, 1000, 64]);
      expect(Object.values(values).filter(Number.isFinite)).toHaveLength(4);
      expect(plan.dispatches).toHaveLength(4);
    });
  } finally {
    close();
  }
});
