import { readFile } from "node:fs/promises";
import { defineConfig, type Plugin } from "vite";
import { bareWgsl } from "./scripts/wgsl.mjs";

const bareShaders: Plugin = {
  name: "bare-shaders",
  enforce: "pre",
  async load(id) {
    if (!id.endsWith(".wgsl?raw")) return null;
    const source = await readFile(id.slice(0, -"?raw".length), "utf8");
    return `export default ${JSON.stringify(bareWgsl(source))};`;
  },
};

export default defineConfig({
  plugins: [bareShaders],
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
