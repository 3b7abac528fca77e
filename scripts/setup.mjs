// Everything a fresh clone needs before it can run, with nothing but Node. As a program: `node scripts/setup.mjs [--install]`.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describeAdapter, findBrowser, findDawnAdapter, findSwiftShader, installChromium, noAdapterAdvice } from "./adapter.mjs";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const oldestNode = [20, 19];

/** @param {{ install?: boolean }} options `install`: take a browser from apt-get where nothing else was found */
export function setUp({ install = false } = {}) {
  checkNode();
  installPackages();
  if (install && !findSwiftShader()) {
    console.log("set-up: no software adapter here, installing Chromium with apt-get");
    if (!installChromium()) console.log("set-up: apt-get could not install Chromium (it needs root on Debian or Ubuntu)");
  }
  const { adapter, browser } = search();
  console.log(`set-up: adapter ${adapter ? describeAdapter(adapter) : "none"}`);
  console.log(`set-up: browser ${browser ? browser.executable : "none"}`);
  return { adapter, browser };
}

/** Builds dist where it is missing or older than the sources. */
export function buildIfStale() {
  // The declarations are written last.
  const built = join(root, "dist/index.d.ts");
  const sources = ["src", "shaders", "package.json", "vite.config.ts", "tsconfig.json", "tsconfig.build.json"];
  const newest = Math.max(...sources.map((source) => newestChange(join(root, source))));
  if (existsSync(built) && statSync(built).mtimeMs >= newest) return;
  console.log("set-up: npm run build (dist is missing or older than src)");
  if (npm(["run", "build", "--silent"]) !== 0) process.exit(1);
}

/** @param {string} path @returns {number} */
function newestChange(path) {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(0, ...readdirSync(path).map((name) => newestChange(join(path, name))));
}

/** A variable of the user's that names something absent ends the program. */
function search() {
  try {
    return { adapter: findDawnAdapter(), browser: findBrowser() };
  } catch (error) {
    console.error(`set-up: ${/** @type {Error} */ (error).message}`);
    process.exit(1);
  }
}

function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const [oldestMajor = 0, oldestMinor = 0] = oldestNode;
  if (major > oldestMajor || (major === oldestMajor && minor >= oldestMinor)) return;
  console.error(`homm-webgpu needs Node ${oldestNode.join(".")} or newer, this is ${process.versions.node}; see https://nodejs.org`);
  process.exit(1);
}

function installPackages() {
  if (matchesLock()) return;
  console.log("set-up: npm ci (node_modules is missing or differs from package-lock.json)");
  // NODE_ENV=production would leave out the tools.
  if (npm(["ci", "--include=dev", "--no-audit", "--no-fund"]) !== 0) {
    console.error("set-up: npm ci failed; its messages are above");
    process.exit(1);
  }
}

/** npm lists what it installed in a file of the lock file's form. */
function matchesLock() {
  const wanted = lockedPackages("package-lock.json");
  const installed = lockedPackages("node_modules/.package-lock.json");
  if (!wanted || !installed) return false;
  return Object.entries(wanted).every(([path, entry]) => {
    const present = installed[path];
    return path === "" || (present ? present.version === entry.version : entry.optional === true);
  });
}

/** @param {string} file @returns {Record<string, { version?: string, optional?: boolean }> | undefined} */
function lockedPackages(file) {
  const path = join(root, file);
  return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")).packages : undefined;
}

/** Runs npm in the repository and returns its exit status. @param {string[]} args */
export function npm(args) {
  const cli = process.env["npm_execpath"];
  const options = { cwd: root, stdio: /** @type {import("node:child_process").StdioOptions} */ (["ignore", "inherit", "inherit"]) };
  const useCli = cli?.endsWith("npm-cli.js");
  // npm is a .cmd file on Windows, which only a shell can run.
  const result = useCli
    ? spawnSync(process.execPath, [cli ?? "", ...args], options)
    : spawnSync("npm", args, { ...options, shell: process.platform === "win32" });
  if (result.error) console.error(`npm could not be started: ${result.error.message}`);
  return result.status ?? 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { adapter, browser } = setUp({ install: process.argv.includes("--install") });
  if (!adapter || !browser) {
    console.error(noAdapterAdvice);
    process.exitCode = 1;
  }
}
