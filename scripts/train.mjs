// `npm run train -- --text FILE …`: set-up, build, then demo/train_terminal.mjs on the adapter that was found.
import { spawn } from "node:child_process";
import { noAdapterAdvice } from "./adapter.mjs";
import { buildIfStale, root, setUp } from "./setup.mjs";

const { adapter } = setUp({ install: false });
if (!adapter) {
  console.error(noAdapterAdvice);
  process.exit(1);
}
buildIfStale();
const program = new URL("../demo/train_terminal.mjs", import.meta.url).pathname;
// File names are relative to where npm was called.
const cwd = process.env["INIT_CWD"] ?? root;
const child = spawn(process.execPath, [program, ...process.argv.slice(2)], { cwd, env: { ...process.env, ...adapter.env }, stdio: "inherit" });
// Ctrl+C reaches both; the program saves before it ends.
process.on("SIGINT", () => {});
child.on("exit", (code) => {
  process.exitCode = code ?? 1;
});
