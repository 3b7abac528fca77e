// Bundles the contenders with Vite: as pages would, or for Node.
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "vite";
import { npm, root } from "../scripts/setup.mjs";

const bench = join(root, "bench");
/** A package of its own, so that the repository's `npm ci` installs none of the libraries that are compared. */
const contenders = join(bench, "contenders");
/** Below its node_modules, so that what a bundle for Node leaves out is found from there. */
const cache = join(contenders, "node_modules/.cache/homm-webgpu");

/** Installs the libraries that the bench compares with, once and after a change of their lock file. */
export function installPeers() {
  const lock = join(contenders, "package-lock.json");
  const stamp = join(contenders, "node_modules/.bench-lock.json");
  const wanted = readFileSync(lock, "utf8");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;
  console.log("set-up: npm ci in bench/contenders (the libraries to compare with; once)");
  if (npm(["ci", "--prefix", contenders, "--include=dev", "--ignore-scripts", "--no-audit", "--no-fund"]) !== 0) {
    throw new Error("npm ci in bench/contenders failed; its messages are above. --contenders homm,plain does without the other libraries");
  }
  writeFileSync(stamp, wanted);
}

/** @param {string} name */
function installedVersion(name) {
  const file = join(contenders, "node_modules", name, "package.json");
  return existsSync(file) ? String(JSON.parse(readFileSync(file, "utf8")).version) : "";
}

/**
 * Bundles contenders into a folder, one entry each.
 * @param {{ names: readonly string[], target: "browser" | "node", source: string, label: string }} options `source`: the checkout whose src is "homm-webgpu"
 */
export async function bundle({ names, target, source, label }) {
  const outDir = join(cache, `${target}-${label}`);
  const isNode = target === "node";
  await build({
    configFile: false,
    root: bench,
    publicDir: false,
    logLevel: "error",
    define: { __JAX_VERSION__: JSON.stringify(installedVersion("@jax-js/jax")) },
    resolve: {
      alias: [
        { find: /^homm-webgpu$/, replacement: join(source, "src/index.ts") },
        { find: /^homm-webgpu\/pom$/, replacement: join(source, "src/pom.ts") },
        { find: /^homm-webgpu\/(models|baselines|reference)$/, replacement: join(source, "src/$1/index.ts") },
      ],
    },
    ...(isNode && { ssr: { noExternal: /** @type {true} */ (true) } }),
    build: {
      target: "es2023",
      outDir,
      emptyOutDir: true,
      ssr: isNode,
      minify: !isNode,
      modulePreload: false,
      reportCompressedSize: false,
      chunkSizeWarningLimit: 100_000,
      rolldownOptions: {
        // It looks for its WebAssembly beside itself.
        ...(isNode && { external: [/^onnxruntime-web/] }),
        input: Object.fromEntries(names.map((name) => [name, join(contenders, `${name}.ts`)])),
        output: { entryFileNames: "[name].js", chunkFileNames: "chunks/[name]-[hash].js", assetFileNames: "assets/[name]-[hash][extname]" },
      },
    },
  });
  if (!isNode) copyFileSync(join(bench, "page.html"), join(outDir, "page.html"));
  return outDir;
}

/** What a page that fetched these files of a bundle had to download. @param {string} folder @param {Iterable<string>} files */
export function weigh(folder, files) {
  let bytes = 0;
  let gzip = 0;
  for (const file of files) {
    const content = readFileSync(join(folder, file));
    bytes += content.length;
    gzip += gzipSync(content, { level: 9 }).length;
  }
  return { bytes, gzip };
}

/** Another commit of this repository in a folder of its own. @param {string} ref */
export function checkOut(ref) {
  const git = (/** @type {string[]} */ ...args) => execFileSync("git", args, { cwd: root, encoding: "utf8" }).trim();
  const commit = git("rev-parse", "--verify", `${ref}^{commit}`);
  const folder = mkdtempSync(join(tmpdir(), "homm-webgpu-base-"));
  git("worktree", "add", "--quiet", "--detach", "--force", folder, commit);
  return {
    commit,
    folder,
    remove() {
      rmSync(folder, { recursive: true, force: true });
      git("worktree", "prune");
    },
  };
}

/** What is being measured: commit, and whether files differ from it. */
export function revision() {
  try {
    const git = (/** @type {string[]} */ ...args) =>
      execFileSync("git", args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
    return { commit: git("rev-parse", "HEAD"), changed: git("status", "--porcelain", "--", "src", "shaders") !== "" };
  } catch {
    return { commit: "unknown", changed: false };
  }
}

mkdirSync(cache, { recursive: true });
