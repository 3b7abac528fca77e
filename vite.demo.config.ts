import { readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { defineConfig, type Plugin } from "vite";
import { frame } from "./demo/shared/frame.ts";

const root = join(import.meta.dirname, "demo");

/** Every HTML file of demo/ is a page. */
function pages(): Record<string, string> {
  const files = readdirSync(root).filter((name) => name.endsWith(".html"));
  return Object.fromEntries(files.map((file) => [basename(file, ".html"), join(root, file)]));
}

const framed: Plugin = {
  name: "page-frame",
  transformIndexHtml: { order: "pre", handler: (html, { filename }) => frame(html, basename(filename)) },
};

// A cross-origin isolated page gets finer timers and SharedArrayBuffer.
const headers = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

const source = (path: string) => join(import.meta.dirname, "src", path);

export default defineConfig({
  root,
  // Relative, so that the built site runs from any path.
  base: "./",
  plugins: [framed],
  // The demo imports the package by its name, as a user would, and gets the sources.
  resolve: {
    alias: [
      { find: /^homm-webgpu$/, replacement: source("index.ts") },
      { find: /^homm-webgpu\/pom$/, replacement: source("pom.ts") },
      { find: /^homm-webgpu\/(\w+)$/, replacement: source("$1/index.ts") },
    ],
  },
  server: { host: "127.0.0.1", headers, fs: { allow: [import.meta.dirname] } },
  preview: { host: "127.0.0.1", headers },
  worker: { format: "es" },
  // Found in a worker, a dependency would reload the page.
  optimizeDeps: { include: ["uplot", "wgpu-matrix"] },
  build: {
    target: "es2023",
    outDir: "../dist-demo",
    emptyOutDir: true,
    rolldownOptions: { input: pages() },
  },
});
