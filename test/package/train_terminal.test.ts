import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseSafetensors } from "../../src/index.ts";
import { hlmConfigOf, vocabularyOf } from "../../src/models/index.ts";

const root = join(import.meta.dirname, "../..");
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "homm-webgpu-train-"));
  writeFileSync(join(folder, "text.txt"), "one two three four five six seven é\n".repeat(60));
});

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const small = ["--dim", "8", "--layers", "1", "--context", "8", "--batch", "2", "--warmup", "2", "--sample-tokens", "12", "--evaluate-batches", "3"];
const program = join(root, "demo/train_terminal.mjs");

/** Runs demo/train_terminal.mjs on the built package. A run that does not end by itself has no status. */
function terminal(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], { cwd: folder, encoding: "utf8", timeout: 100_000 });
  return { status, stdout, stderr: stderr.replace(/^Warning: maxDynamic.*\n/gm, "") };
}

type Event = { event: string; step: number; loss: number; validation?: number; text?: string; curve?: { step: number; validation: number }[] };
const eventsOf = (stdout: string): Event[] =>
  stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));

describe("training in the terminal", () => {
  it("learns from a text, reports, samples, saves, and goes on from what it saved", () => {
    const args = ["--text", "text.txt", ...small, "--evaluate-every", "4", "--sample-every", "6"];
    const whole = terminal(...args, "--steps", "10", "--out", "whole", "--save-every", "6", "--json");
    expect(whole.stderr).toBe("");
    expect(whole.status).toBe(0);
    const events = eventsOf(whole.stdout);
    expect(events.map(({ event, step }) => `${event} ${step ?? ""}`.trim())).toEqual([
      "begin 0",
      ...["step 1", "step 2", "step 3", "step 4", "evaluation 4", "step 5", "step 6", "sample 6", "saved 6"],
      ...["step 7", "step 8", "evaluation 8", "step 9", "step 10", "evaluation 10", "sample 10", "saved 10", "end"],
    ]);
    const sample = events.find(({ event }) => event === "sample");
    expect(sample?.text).toMatch(/^one two /);
    expect([...sample!.text!]).toHaveLength(8 + 12);
    const { curve } = events.at(-1)!;
    expect(curve?.map(({ step }) => step)).toEqual([4, 8, 10]);
    expect(JSON.parse(readFileSync(join(folder, "whole/curve.json"), "utf8"))).toEqual({ steps: 10, curve });

    const checkpoint = parseSafetensors(readFileSync(join(folder, "whole/checkpoint.safetensors")));
    expect(hlmConfigOf(checkpoint)).toMatchObject({ dim: 8, layers: 1, contextLength: 8, vocabSize: vocabularyOf(checkpoint).size });
    expect(vocabularyOf(checkpoint).knows("événtün")).toBe(false);
    expect(vocabularyOf(checkpoint).knows("one é\n")).toBe(true);

    // The schedule depends on the last step, so that a shorter run has another; a rate that stays the same has not.
    const still = ["--lr", "0.003", "--min-lr", "0.003", "--warmup", "0", "--json"];
    terminal(...args, "--steps", "5", "--out", "part", ...still);
    const rest = eventsOf(terminal(...args, "--steps", "8", "--out", "rest", "--resume", "part/training.safetensors", ...still).stdout);
    const once = eventsOf(terminal(...args, "--steps", "8", "--out", "once", ...still).stdout);
    const losses = (all: Event[]) => all.flatMap(({ event, step, loss }) => (event === "step" && step > 5 ? [loss] : []));
    expect(losses(rest)).toHaveLength(3);
    expect(losses(rest)).toEqual(losses(once));
    for (const file of ["checkpoint", "training"]) {
      const weights = (run: string) =>
        [...parseSafetensors(readFileSync(join(folder, run, `${file}.safetensors`)))].map(({ name, bytes }) => [name, bytes]);
      expect(weights("rest")).toEqual(weights("once"));
    }
  });

  it("writes for people, and takes any text as bytes", () => {
    const { status, stdout, stderr } = terminal(
      "--text",
      "text.txt",
      ...small,
      "--vocabulary",
      "bytes",
      "--steps",
      "4",
      "--validation",
      "0",
      "--sample-every",
      "3",
    );
    expect(stderr).toBe("");
    expect(status).toBe(0);
    expect(stdout).toMatch(/^adapter {2}\S.*\((software, on the CPU|GPU)\)$/m);
    expect(stdout).toMatch(/^text {5}[\d,]+ tokens to learn, 0 to validate, vocabulary of 256$/m);
    expect(stdout).toMatch(/^model {4}[\d,]+ parameters, 1 layers of width 8 and order 2$/m);
    expect(stdout).toMatch(/^step 4\/4 {2}loss \d\.\d{3} {2}gradient \d+\.\d\d {2}rate \S+ {2}[\d,]+ tokens\/s, 0 s left$/m);
    expect(stdout).toMatch(/^--- sample after step 3\none two /m);
    expect(stdout).toMatch(/^done$/m);
  });

  it("saves when it is interrupted", async () => {
    const child = spawn(process.execPath, [program, "--text", "text.txt", ...small, "--steps", "1000000", "--out", "stopped", "--json"], {
      cwd: folder,
    });
    let stdout = "";
    child.stdout.on("data", (data) => {
      stdout += data;
      if (!child.killed && /"event":"step".*"step":3,/.test(stdout)) child.kill("SIGINT");
    });
    const status = await new Promise((resolve) => child.on("exit", resolve));
    expect(status).toBe(0);
    const { step } = eventsOf(stdout).find(({ event }) => event === "stopped")!;
    const saved = parseSafetensors(readFileSync(join(folder, "stopped/training.safetensors")));
    expect(JSON.parse(saved.metadata["trainer"]!).steps).toBe(step);
  });

  it("says when the loss explodes, and keeps what was good", () => {
    const { status, stdout, stderr } = terminal(
      "--text",
      "text.txt",
      ...small,
      "--steps",
      "50",
      "--lr",
      "1000",
      "--min-lr",
      "1000",
      "--out",
      "bad",
      "--clip",
      "1000",
    );
    expect(stderr).toMatch(/loss and gradients must stay finite, got .* in step \d+; the weights are those before it/);
    expect(status).toBe(1);
    expect(stdout).toMatch(/^saved step \d+ in bad$/m);
    const saved = parseSafetensors(readFileSync(join(folder, "bad/checkpoint.safetensors")));
    for (const tensor of saved) expect(tensor.toFloat32().every(Number.isFinite)).toBe(true);
  });

  it.each([
    [[], "--text must name a text file"],
    [["--text", "t", "--steps=-1"], '--steps must be a number from 0 to 2147483648, got "-1"'],
    [["--text", "t", "--batch", "5", "--accumulate", "2"], "--accumulate must divide --batch 5, got 2"],
    [["--text", "t", "--vocabulary", "words"], '--vocabulary must be chars or bytes, got "words"'],
    [["--txt", "t"], "Unknown option '--txt'"],
  ])("refuses %j", (args, message) => {
    const { status, stdout, stderr } = terminal(...args);
    expect(stderr).toContain(message);
    expect(stdout).toBe("");
    expect(status).toBe(2);
  });

  it("names a text that is too short, and one that is not there", () => {
    writeFileSync(join(folder, "short.txt"), "abc");
    expect(terminal("--text", "short.txt", ...small).stderr).toContain("tokens must have at least length + 1 = 9 tokens, got 2");
    const absent = terminal("--text", "absent.txt");
    expect(absent.stderr).toContain("absent.txt");
    expect(absent.status).toBe(1);
  });

  it("lists its options", () => {
    const { status, stdout } = terminal("--help");
    expect(status).toBe(0);
    for (const option of ["--text", "--steps", "--dim", "--layers", "--out", "--resume"]) expect(stdout).toContain(option);
  });
});
