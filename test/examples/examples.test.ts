import { execFile, spawn } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import type { Page } from "playwright-core";
import { build } from "vite";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { inPage, serveFolder } from "../support/browser.ts";
import { install, pack } from "../support/installed.ts";

const root = join(import.meta.dirname, "../..");
const execute = promisify(execFile);

/** A copy of examples/ in which the packed package is installed. */
let examples: string;
let folder: string;
const closers: (() => void)[] = [];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "homm-webgpu-examples-"));
  examples = join(folder, "examples");
  cpSync(join(root, "examples"), examples, { recursive: true, filter: (path) => !["node_modules", "dist"].includes(basename(path)) });
  mkdirSync(join(folder, "demo"));
  symlinkSync(join(root, "demo/public"), join(folder, "demo/public"), "junction");
  const { dependencies, devDependencies } = JSON.parse(readFileSync(join(examples, "package.json"), "utf8"));
  const links = Object.keys({ ...dependencies, ...devDependencies }).filter((name) => name !== "homm-webgpu");
  await install(examples, await pack(folder), links);
});

afterEach(() => {
  for (const close of closers.splice(0)) close();
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function serve(path: string) {
  const server = await serveFolder(join(examples, path));
  closers.push(server.close);
  return server;
}

/** Builds a folder of examples/ as its users do, and serves what comes out below some path. */
async function built(name: string) {
  await build({ root: join(examples, name), logLevel: "error", build: { outDir: "dist/some/path", assetsInlineLimit: 0 }, base: "./" });
  const server = await serve(join(name, "dist"));
  return { ...server, url: `${server.url}some/path/` };
}

const text = async (page: Page, selector: string) => (await page.locator(selector).textContent()) ?? "";
const fourNumbers = /(-?\d\.\d+ ){3}-?\d\.\d+$/;

it("examples/package.json asks for what the repository has", () => {
  const { dependencies, devDependencies } = JSON.parse(readFileSync(join(root, "examples/package.json"), "utf8"));
  const { devDependencies: own } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const { "homm-webgpu": self, ...others } = { ...dependencies, ...devDependencies };
  expect(self).toBe("file:..");
  for (const [name, version] of Object.entries(others)) expect(version, name).toBe(own[name]);
});

describe("examples", () => {
  it("plain: a page without a bundler", async () => {
    const { url } = await serve(".");
    await inPage(`${url}plain/`, async (page) => {
      await page.getByText("[1, 1000, 64]").waitFor();
      expect(await text(page, "#output")).toMatch(fourNumbers);
    });
  });

  it("vite: a model is downloaded once, and writes", async () => {
    const { url, requests } = await built("vite");
    await inPage(url, async (page) => {
      for (const visit of ["first", "second"]) {
        const button = page.getByRole("button", { name: "Go on" });
        await page.locator("#go:enabled").waitFor();
        await button.click();
        await page.waitForFunction(() => (document.querySelector("#text")?.textContent?.length ?? 0) === "ROMEO:".length + 80);
        expect(await text(page, "#text"), visit).toMatch(/^ROMEO:[\n !$&',\-.3:;?A-Za-z]+$/);
        await page.reload();
      }
    });
    expect(requests.filter((path) => path.endsWith(".safetensors"))).toHaveLength(1);
  });

  it("worker: tokens go there, answers come back", async () => {
    const { url } = await built("worker");
    await inPage(url, async (page) => {
      await page.getByText("; the query reads ").waitFor();
      expect(await text(page, "#status")).toMatch(/^10000 tokens seen; the query reads /);
      expect(await text(page, "#status")).toMatch(fourNumbers);
    });
  });

  it("renderer: the layer's output is drawn, and moves", async () => {
    const { url } = await built("renderer");
    await inPage(url, async (page) => {
      await page.setViewportSize({ width: 512, height: 512 });
      const pictures: number[][] = [];
      await expect
        .poll(async () => pictures.push(await brightPixels(page)) && (pictures.at(-1)?.length ?? 0), { timeout: 60_000 })
        .toBeGreaterThan(5000);
      await expect.poll(async () => overlap(pictures.at(-1) ?? [], await brightPixels(page)), { timeout: 60_000 }).toBeLessThan(0.5);
      expect(await text(page, "#status")).toBe("");
      await page.screenshot({ path: join(root, "test-results/example-renderer.png") });
    });
  });

  it("react: rendered on a server, taken over in the browser, and back after the device is lost", async () => {
    await build({ root: join(examples, "react"), logLevel: "error" });
    const server = spawn(process.execPath, ["react/server.mjs"], { cwd: examples, env: { ...process.env, PORT: "0" } });
    closers.push(() => server.kill());
    const url = await new Promise<string>((resolve, reject) => {
      let [out, errors] = ["", ""];
      server.stdout.on("data", (chunk) => {
        out += chunk;
        if (out.includes("\n")) resolve(out.trim());
      });
      server.stderr.on("data", (chunk) => {
        errors += chunk;
      });
      server.on("exit", () => reject(new Error(errors)));
    });
    const markup = await (await fetch(url)).text();
    expect(markup).toContain('<div id="app"><main><button type="button" disabled="">Preparing the GPU…</button><output></output></main></div>');

    await inPage(url, async (page) => {
      await page.addInitScript(() => {
        const { requestDevice } = GPUAdapter.prototype;
        const devices: GPUDevice[] = [];
        Object.assign(window, { devices });
        GPUAdapter.prototype.requestDevice = async function (...args) {
          const device = await requestDevice.apply(this, args);
          devices.push(device);
          return device;
        };
      });
      await page.reload();
      const mix = async () => {
        const before = await text(page, "output");
        await page.getByRole("button", { name: "Mix 100 tokens" }).click();
        await page.waitForFunction((old) => (document.querySelector("output")?.textContent ?? "") !== old, before);
        expect(await text(page, "output")).toMatch(fourNumbers);
      };
      await mix();
      await page.evaluate(() => (window as unknown as { devices: GPUDevice[] }).devices.at(-1)?.destroy());
      await page.getByRole("button", { name: "Preparing the GPU…" }).waitFor();
      await mix();
    });
  });

  it("node: a stream is read, saved and asked again, and the process ends", async () => {
    const { stdout } = await execute(process.execPath, ["main.mjs"], { cwd: join(examples, "node"), timeout: 60_000 });
    expect(stdout.trim().split("\n").slice(1)).toEqual([expect.stringMatching(/^10000 tokens in \d+ bytes$/), "the saved state answers the same"]);
  });
});

/** Where the canvas is bright: indices of its pixels. */
async function brightPixels(page: Page): Promise<number[]> {
  const png = (await page.locator("canvas").screenshot()).toString("base64");
  return page.evaluate(async (data) => {
    const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${data}`)).blob());
    const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
    context?.drawImage(image, 0, 0);
    const pixels = context?.getImageData(0, 0, image.width, image.height).data ?? [];
    return Array.from({ length: pixels.length / 4 }, (_, i) => i).filter((i) => (pixels[4 * i + 2] ?? 0) > 150);
  }, png);
}

function overlap(a: number[], b: number[]): number {
  const inA = new Set(a);
  return b.filter((i) => inA.has(i)).length / Math.max(1, a.length);
}
