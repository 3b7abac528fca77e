// `npm test`: set-up, then every stage; a failed stage does not stop the next. The last line is `N passed, N failed`.
//   npm test -- --only dawn,chromium    some stages, by name
//   npm test -- --grep "causal"         only tests whose name matches
//   npm test -- --install               as root on Debian or Ubuntu: may install Chromium with apt-get
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import util from "node:util";
import { noAdapterAdvice } from "./adapter.mjs";
import { root, setUp } from "./setup.mjs";

/**
 * A stage is a command that passes or fails as one check, or a vitest project that counts its own tests.
 * @typedef {{ name: string, needs?: "adapter" | "browser", ifPresent?: string } & ({ command: string[] } | { project: string, args?: string[] })} Stage
 */

/** @type {Stage[]} */
const stages = [
  { name: "types", command: ["typescript/bin/tsc"] },
  { name: "lint", command: ["@biomejs/biome/bin/biome", "check", "--error-on-warnings"] },
  { name: "imports", project: "unit", args: ["test/imports.test.ts"] },
  { name: "unit", project: "unit", args: ["--exclude", "test/imports.test.ts"] },
  { name: "compile", project: "compile" },
  { name: "dawn", project: "dawn", needs: "adapter" },
  { name: "chromium", project: "chromium", needs: "browser" },
  { name: "build", command: ["vite/bin/vite.js", "build"] },
  { name: "minimal", command: ["vite/bin/vite.js", "build", "--mode", "minimal"] },
  { name: "declarations", command: ["typescript/bin/tsc", "-p", "tsconfig.build.json"] },
  { name: "built-types", project: "types" },
  { name: "docs", command: ["../scripts/docs.mjs"] },
  { name: "publint", command: ["publint/src/cli.js", "--strict"] },
  { name: "attw", command: ["@arethetypeswrong/cli/dist/index.js", "--pack", "--profile", "esm-only"] },
  { name: "package", project: "package", needs: "adapter" },
  { name: "examples", project: "examples", needs: "browser" },
  { name: "demo", command: ["vite/bin/vite.js", "build", "-c", "vite.demo.config.ts"], ifPresent: "demo/index.html" },
  { name: "pages", project: "pages", needs: "browser", ifPresent: "test/pages" },
];

const options = readOptions();
const started = performance.now();
const found = setUp({ install: options.install });
const reports = mkdtempSync(join(tmpdir(), "homm-webgpu-test-"));
/** @type {{ name: string, passed: number, failed: number, skipped: number, seconds: number }[]} */
const results = [];
for (const stage of stages) {
  if (options.only && !options.only.includes(stage.name)) continue;
  if (stage.ifPresent && !existsSync(join(root, stage.ifPresent))) continue;
  console.log(`\n== ${stage.name}`);
  const start = performance.now();
  const counts = await runStage(stage);
  const seconds = (performance.now() - start) / 1000;
  results.push({ name: stage.name, ...counts, seconds });
  console.log(`== ${stage.name} ${counts.failed ? "FAILED" : "passed"} in ${seconds.toFixed(1)} s`);
}
rmSync(reports, { recursive: true, force: true });
report();

function readOptions() {
  const names = stages.map((stage) => stage.name);
  try {
    const { values } = util.parseArgs({
      options: { only: { type: "string" }, grep: { type: "string" }, install: { type: "boolean", default: false } },
    });
    const only = values.only?.split(",");
    const unknown = only?.filter((name) => !names.includes(name)) ?? [];
    if (unknown.length) throw new Error(`no stage is called ${unknown.join(", ")}`);
    return { ...values, install: values.install === true, only };
  } catch (error) {
    console.error(
      `${/** @type {Error} */ (error).message}\nusage: npm test -- [--only STAGE,...] [--grep PATTERN] [--install]\nstages: ${names.join(", ")}`,
    );
    process.exit(2);
  }
}

/** @param {Stage} stage */
async function runStage(stage) {
  const failedStage = { passed: 0, failed: 1, skipped: 0 };
  if (stage.needs && !found[stage.needs]) {
    console.error(`${stage.name}: no ${stage.needs} on this machine\n${noAdapterAdvice}`);
    return failedStage;
  }
  if ("command" in stage) {
    const status = await run(stage.command);
    return status === 0 ? { passed: 1, failed: 0, skipped: 0 } : failedStage;
  }
  const file = join(reports, `${stage.name}.json`);
  const filter = options.grep === undefined ? [] : ["--testNamePattern", options.grep, "--passWithNoTests"];
  // A forgotten .only must not hide the other tests.
  const common = ["--allowOnly=false", "--reporter=default", "--reporter=json", `--outputFile.json=${file}`];
  const status = await run(["vitest/vitest.mjs", "run", "--project", stage.project, ...(stage.args ?? []), ...filter, ...common]);
  if (!existsSync(file)) return status === 0 ? { ...failedStage, failed: 0 } : failedStage;
  const json = JSON.parse(readFileSync(file, "utf8"));
  const passed = json.numPassedTests;
  // A file that cannot be loaded, or an error outside of a test, fails the run without failing a test.
  const unloadable = json.testResults.filter((/** @type {any} */ suite) => suite.status === "failed" && suite.assertionResults.length === 0).length;
  const failed = Math.max(json.numFailedTests + unloadable, status === 0 ? 0 : 1);
  return { passed, failed, skipped: options.grep === undefined ? json.numPendingTests + json.numTodoTests : 0 };
}

/** Runs a program of node_modules with this Node. @param {string[]} command @returns {Promise<number>} */
function run([program = "", ...args]) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [join(root, "node_modules", program), ...args], { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
    child.on("error", (error) => {
      console.error(error.message);
      resolve(1);
    });
    child.on("exit", (code) => resolve(code ?? 1));
  });
}

function report() {
  console.log(`\n${"stage".padEnd(14)}${"passed".padStart(8)}${"failed".padStart(8)}${"skipped".padStart(9)}${"seconds".padStart(9)}`);
  for (const { name, passed, failed, skipped, seconds } of results) {
    console.log(
      `${name.padEnd(14)}${String(passed).padStart(8)}${String(failed).padStart(8)}${String(skipped).padStart(9)}${seconds.toFixed(1).padStart(9)}`,
    );
  }
  const sum = (/** @type {"passed" | "failed" | "skipped"} */ key) => results.reduce((total, result) => total + result[key], 0);
  const failedStages = results.filter((result) => result.failed > 0).map((result) => result.name);
  console.log(
    `${((performance.now() - started) / 1000).toFixed(0)} s in all${failedStages.length ? `; failed stages: ${failedStages.join(", ")}` : ""}`,
  );
  console.log(`${sum("passed")} passed, ${sum("failed")} failed${sum("skipped") ? `, ${sum("skipped")} skipped` : ""}`);
  // A filter that matches nothing is a mistake.
  process.exitCode = failedStages.length || sum("passed") === 0 ? 1 : 0;
}
