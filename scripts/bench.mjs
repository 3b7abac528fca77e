// `node scripts/bench.mjs FILE [ARGS]`: set-up, build, then a benchmark on the adapter that was found.
import { spawnSync } from "node:child_process";
import { noAdapterAdvice } from "./adapter.mjs";
import { buildIfStale, root, setUp } from "./setup.mjs";

const { adapter } = setUp({ install: false });
if (!adapter) {
  console.error(noAdapterAdvice);
  process.exit(1);
}
buildIfStale();
const result = spawnSync(process.execPath, process.argv.slice(2), { cwd: root, env: { ...process.env, ...adapter.env }, stdio: "inherit" });
process.exit(result.status ?? 1);
