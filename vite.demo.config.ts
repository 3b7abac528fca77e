import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { defineConfig } from "vite";

const root = join(import.meta.dirname, "demo");

/** demo/index.html and every folder of demo/ that has a page of its own. */
function pages(): Record<string, string> {
  const folders = readdirSync(root, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const withPage = ["", ...folders.map((folder) => folder.name)].filter((name) => existsSync(join(root, name, "index.html")));
  return Object.fromEntries(withPage.map((name) => [name || "index", join(root, name, "index.html")]));
}

// A cross-origin isolated page gets finer timers and SharedArrayBuffer.
const headers = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

const source = (path: string) => join(import.meta.dirname, "src", path);

export default defineConfig({
  root,
  base: "./",
  // The demo imports the package by its name, as a user would, and gets the sources.
  resolve: {
    alias: [
      { find: /^homm-webgpu$/, replacement: source("index.ts") },
      { find: /^homm-webgpu\/(models|reference)$/, replacement: source("$1/index.ts") },
    ],
  },
  server: { host: "127.0.0.1", headers, fs: { allow: [import.meta.dirname] } },
  preview: { host: "127.0.0.1", headers },
  build: {
    target: "es2023",
    outDir: "../dist-demo",
    emptyOutDir: true,
    rolldownOptions: { input: pages() },
  },
});
