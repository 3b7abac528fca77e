import { defineConfig } from "vite";
import { packedShaders } from "./scripts/wgsl.mjs";

const entry = {
  index: "src/index.ts",
  inference: "src/inference.ts",
  models: "src/models/index.ts",
  train: "src/train/index.ts",
  pom: "src/pom.ts",
  baselines: "src/baselines/index.ts",
  reference: "src/reference/index.ts",
  node: "src/node.ts",
};

/** `--mode minimal` adds homm-webgpu/minimal to dist: a build of its own, in which FULL of src/checks.ts is false. */
export default defineConfig(({ mode }) => ({
  plugins: [packedShaders()],
  define: { HOMM_MINIMAL: String(mode === "minimal") },
  build: {
    target: "es2023",
    minify: false,
    sourcemap: true,
    emptyOutDir: mode !== "minimal",
    lib: { entry: mode === "minimal" ? { minimal: "src/minimal.ts" } : entry, formats: ["es"] },
    rolldownOptions: {
      external: ["webgpu", /^node:/],
      output: {
        chunkFileNames: "chunks/[name]-[hash].js",
        // What is alike stands together, where gzip, which looks back over 32 kB, finds it.
        codeSplitting: {
          groups: [
            { name: "shaders", test: /\.wgsl/ },
            { name: "ops", test: /\/src\/ops\// },
            { name: "plans", test: /\/src\/\w+\/\w*plan\w*\.ts$/ },
          ],
        },
      },
    },
  },
}));
