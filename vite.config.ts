import { readFile } from "node:fs/promises";
import { defineConfig, type Plugin } from "vite";

/** Shaders go into the bundle without their comments and indentation. The lines stay, so that a compiler's line numbers are those of the file. */
const bareWgsl: Plugin = {
  name: "bare-wgsl",
  enforce: "pre",
  async load(id) {
    if (!id.endsWith(".wgsl?raw")) return null;
    const source = await readFile(id.slice(0, -"?raw".length), "utf8");
    const lines = source.split("\n").map((line) => line.replace(/\/\/.*/, "").trim());
    return `export default ${JSON.stringify(lines.join("\n"))};`;
  },
};

export default defineConfig({
  plugins: [bareWgsl],
  build: {
    target: "es2023",
    minify: false,
    sourcemap: true,
    lib: {
      entry: {
        index: "src/index.ts",
        inference: "src/inference.ts",
        models: "src/models/index.ts",
        train: "src/train/index.ts",
        pom: "src/pom.ts",
        baselines: "src/baselines/index.ts",
        reference: "src/reference/index.ts",
        node: "src/node.ts",
      },
      formats: ["es"],
    },
    rolldownOptions: {
      external: ["webgpu", /^node:/],
      output: { chunkFileNames: "chunks/[name]-[hash].js" },
    },
  },
});
