// Where contenders run: each in a page of one headless browser, or each in a Node process of its own. Both are driven alike.
import { fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { preview } from "vite";
import { browserArguments, findBrowser, noAdapterAdvice } from "../scripts/adapter.mjs";
import { root } from "../scripts/setup.mjs";

/** @typedef {import("./types.ts").Driver} Driver */
/** @typedef {{ driver: Driver, files: Set<string>, close(): Promise<void> }} Client `files`: what the page has fetched of its bundle so far */
/** @typedef {{ name: string, version: string, connect(folder: string, contender: string): Promise<Client>, restart(): Promise<boolean>, close(): Promise<void> }} Host `restart` says whether it ended the clients, too */

const METHODS = /** @type {const} */ (["machine", "open", "run", "counts", "restart", "read", "kernels"]);

/** @param {(name: string, args: unknown[]) => Promise<unknown>} call @returns {Driver} */
function driverOf(call) {
  const methods = METHODS.map((name) => [name, (/** @type {unknown[]} */ ...args) => call(name, args)]);
  return /** @type {Driver} */ (/** @type {unknown} */ (Object.fromEntries(methods)));
}

/** @returns {Promise<Host>} */
export async function browserHost() {
  const found = findBrowser();
  if (!found) throw new Error(noAdapterAdvice);
  const env = /** @type {Record<string, string>} */ ({ ...process.env, ...found.env });
  // A long dispatch on a software adapter is no hang.
  const launch = () => chromium.launch({ executablePath: found.executable, args: [...browserArguments(), "--disable-gpu-watchdog"], env });
  let browser = await launch();
  /** @type {Map<string, Promise<import("vite").PreviewServer>>} */
  const servers = new Map();
  return {
    name: "Chromium",
    version: browser.version(),
    async connect(folder, contender) {
      const server = await (servers.get(folder) ?? servers.set(folder, serve(folder)).get(folder));
      const url = new URL(`page.html?contender=${contender}`, server?.resolvedUrls?.local[0]);
      const page = await browser.newPage();
      /** @type {Set<string>} */
      const files = new Set();
      /** @type {string[]} */
      const problems = [];
      page.on("request", (request) => {
        const { pathname, origin } = new URL(request.url());
        if (origin === url.origin && pathname !== url.pathname) files.add(pathname.slice(1));
      });
      page.on("console", (message) => {
        if (message.type() === "error") problems.push(message.text());
      });
      page.on("pageerror", (error) => problems.push(String(error)));
      await page.goto(url.href);
      await page.waitForFunction("globalThis.contender !== undefined", undefined, { timeout: 60_000 }).catch(() => {
        throw new Error(`the page did not load: ${problems.join("; ") || "no message"}`);
      });
      return {
        files,
        driver: driverOf(async (name, args) => {
          try {
            return await page.evaluate(`globalThis.contender.${name}(...${JSON.stringify(args)})`);
          } catch (error) {
            const message = /** @type {Error} */ (error).message.replace(/^page\.evaluate: (\w+: )?/, "").split("\n    at ")[0] ?? "";
            throw new Error([message, ...problems.splice(0)].join("; "));
          }
        }),
        close: () => page.close(),
      };
    },
    async restart() {
      await browser.close();
      browser = await launch();
      return true;
    },
    async close() {
      await browser.close();
      for (const server of servers.values()) await (await server).close();
    },
  };
}

/** Cross-origin isolation makes a page's clock step by 5 µs instead of 100. @param {string} folder */
function serve(folder) {
  const headers = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
  return preview({
    configFile: false,
    root: folder,
    logLevel: "error",
    build: { outDir: folder },
    preview: { host: "127.0.0.1", port: 0, headers },
  });
}

/** @returns {Promise<Host>} */
export async function nodeHost() {
  const { version } = JSON.parse(readFileSync(join(root, "node_modules/webgpu/package.json"), "utf8"));
  return {
    name: "Node",
    version: `${process.versions.node}, Dawn (webgpu ${version})`,
    async connect(folder, contender) {
      const child = fork(join(root, "bench/worker.mjs"), [join(folder, `${contender}.js`)], { stdio: ["ignore", "inherit", "pipe", "ipc"] });
      let complaints = "";
      child.stderr?.setEncoding("utf8").on("data", (text) => {
        complaints = (complaints + text).slice(-2_000);
      });
      /** @type {Map<number, { resolve(value: unknown): void, reject(error: Error): void }>} */
      const pending = new Map();
      let last = 0;
      const gone = () => new Error(`the process ended${complaints ? `: ${complaints.trim()}` : ""}`);
      await new Promise((resolve, reject) => {
        child.once("exit", () => reject(gone()));
        child.on("message", (/** @type {any} */ message) => {
          if (message.ready === true) resolve(undefined);
          else if (message.ready === false) reject(new Error(message.error));
          else if (message.error === undefined) pending.get(message.id)?.resolve(message.result);
          else pending.get(message.id)?.reject(new Error(message.error));
        });
      }).catch((error) => {
        child.kill();
        throw error;
      });
      child.once("exit", () => {
        for (const { reject } of pending.values()) reject(gone());
      });
      return {
        files: new Set(),
        driver: driverOf(
          (name, args) =>
            new Promise((resolve, reject) => {
              if (child.exitCode !== null) return reject(gone());
              pending.set(++last, { resolve, reject });
              child.send({ id: last, name, args });
            }),
        ),
        async close() {
          child.kill();
        },
      };
    },
    async restart() {
      return false;
    },
    async close() {},
  };
}
