import { defineConfig } from "vite";

export default defineConfig({
  build: {
    target: "es2023",
    minify: false,
    sourcemap: true,
    lib: {
      entry: {
        index: "src/index.ts",
        models: "src/models/index.ts",
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
