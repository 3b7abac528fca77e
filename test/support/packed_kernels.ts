import { join } from "node:path";
import { build, type Rolldown } from "vite";
import { packedShaders } from "../../scripts/wgsl.mjs";
import type { Kernel } from "../../src/runtime/kernel.ts";

const root = join(import.meta.dirname, "../..");

/** The registry's kernels as the package has them. */
export async function packedKernels(): Promise<readonly Kernel[]> {
  const [bundle] = (await build({
    root,
    configFile: false,
    logLevel: "silent",
    plugins: [packedShaders()],
    build: { write: false, minify: false, target: "es2023", lib: { entry: join(root, "src/ops/registry.ts"), formats: ["es"] } },
  })) as Rolldown.RolldownOutput[];
  const [chunk] = bundle?.output ?? [];
  return (await import(`data:text/javascript,${encodeURIComponent(chunk?.code ?? "")}`)).kernels;
}
