// How well a small model learns a text: the curve of training and validation loss as JSON, with the time of a step.
//   npm run bench:quality -- --text tinyshakespeare.txt [--json FILE] [options of npm run train]
// Without further options: 4 layers of width 128, order 2, 12 rows of 64 characters, 2,000 steps of AdamW from 1e-3 to 1e-4.
import { spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const forwarded = process.argv.slice(2);
const at = forwarded.indexOf("--json");
const [, file] = at === -1 ? [] : forwarded.splice(at, 2);
const program = fileURLToPath(new URL("../demo/train_terminal.mjs", import.meta.url));
// Its defaults are the settings of the comparison; all of the validation text is evaluated.
const settings = ["--evaluate-every", "200", "--evaluate-batches", "1000000", "--sample-every", "0"];
const child = spawn(process.execPath, [program, ...settings, ...forwarded, "--json"], { stdio: ["ignore", "pipe", "inherit"] });

/** @type {Record<string, unknown> & { config?: unknown }} */
let begin = {};
/** @type {{ step: number, train: number, validation: number }[]} */
let curve = [];
/** Seconds of steps that follow another step at once. @type {number[]} */
const times = [];
let last = { event: "", seconds: 0 };
for await (const line of createInterface({ input: child.stdout })) {
  const event = JSON.parse(line);
  if (event.event === "begin") begin = event;
  if (event.event === "evaluation") {
    console.error(`step ${event.step}: training loss ${event.train.toFixed(3)}, validation loss ${event.validation.toFixed(3)}, ${event.seconds} s`);
    curve.push({ step: event.step, train: event.train, validation: event.validation });
  }
  if (event.event === "step" && last.event === "step") times.push(event.seconds - last.seconds);
  if (event.event === "end") curve = event.curve;
  last = event;
}
if (last.event !== "end") {
  process.exitCode = 1;
} else {
  const { event: _, ...facts } = begin;
  times.sort((a, b) => a - b);
  const round = (/** @type {number} */ value) => Number(value.toFixed(4));
  const report = {
    ...facts,
    node: process.version,
    options: forwarded,
    msPerStep: Math.round(1000 * (times[Math.floor(times.length / 2)] ?? 0)),
    finalValidation: round(curve.at(-1)?.validation ?? Number.NaN),
    bestValidation: round(Math.min(...curve.map(({ validation }) => validation))),
    curve: curve.map(({ step, train, validation }) => ({ step, train: round(train), validation: round(validation) })),
  };
  const text = JSON.stringify(report, null, 1);
  if (file === undefined) console.log(text);
  else await writeFile(file, `${text}\n`);
}
