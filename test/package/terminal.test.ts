import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { loadJson } from "../support/fixtures.ts";

const root = join(import.meta.dirname, "../..");
const { cases } = await loadJson<{ cases: Record<string, { greedy_text: string }> }>("test/fixtures/hlm_shakespeare.expected.json");

/** Runs demo/terminal.mjs on the built package. A run that does not end by itself has no status. */
function terminal(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["demo/terminal.mjs", "--position", "300", ...args], {
    cwd: root,
    encoding: "utf8",
    timeout: 60_000,
  });
  return { status, stdout, stderr };
}

describe("the terminal demo", () => {
  it.each(Object.entries(cases))("continues %j as the original model does, and ends", (prompt, { greedy_text }) => {
    const tokens = greedy_text.length - prompt.length;
    const { status, stdout, stderr } = terminal("--prompt", prompt, "--tokens", String(tokens), "--temperature", "0");
    expect(stderr.replace(/^Warning: maxDynamic.*\n/gm, "")).toBe("");
    expect(status).toBe(0);
    expect(stdout).toContain(`\n\n${greedy_text}\n\n${tokens} tokens in `);
    expect(stdout).toMatch(/^adapter {2}\S.*\((software, on the CPU|GPU)\)$/m);
    expect(stdout).toMatch(/^model {4}1,137,409 parameters, 4 layers of width 128 and order 2;/m);
    expect(stdout).toMatch(/, [\d.]+ tokens\/s from the second token on$/m);
    expect(stdout).toMatch(/^weights on the GPU: 4\.\d\d MiB$/m);
    expect(stdout).toMatch(/^state: [\d,]+ bytes, at any length$/m);
    expect(stdout).toMatch(/^a token costs [\d.]+ ms at position 10 and [\d.]+ ms at position 300: [\d.]+ times as much$/m);
  });

  it("says which seed it drew, and writes the same text for it", () => {
    const text = (stdout: string) => /\n\n(ROMEO:.*)\n\n150 tokens/s.exec(stdout)?.[1];
    const drawn = terminal("--tokens", "150", "--top-k", "10").stdout;
    const seed = /among the 10 likeliest, seed (\d+)/.exec(drawn)?.[1] ?? "";
    expect(text(drawn)).toHaveLength("ROMEO:".length + 150);
    expect(text(terminal("--tokens", "150", "--top-k", "10", "--seed", seed).stdout)).toBe(text(drawn));
  });

  it.each([
    [["--prompt", "Zoë, 42"], 'does not know "ë" (U+00EB), "4" (U+0034), "2" (U+0032); it knows the line break, the space and !$&'],
    [["--prompt", ""], "--prompt must have at least one character"],
    [["--tokens", "0"], '--tokens must be a number from 1 to 1000000, got "0"'],
    [["--tokens", "1.5"], '--tokens must be a whole number, got "1.5"'],
    [["--temperature", "hot"], '--temperature must be a number from 0 to 100, got "hot"'],
    [["--top-k", "0"], "--top-k must be a number from 1"],
    [["--seed", "4294967296"], "--seed must be a number from 0 to 4294967295"],
    [["--sed", "1"], "Unknown option '--sed'"],
  ])("refuses %j", (args, message) => {
    const { status, stdout, stderr } = terminal(...args);
    expect(stderr).toContain(message);
    expect(stdout).toBe("");
    expect(status).toBe(2);
  });

  it("lists its options", () => {
    const { status, stdout } = terminal("--help");
    expect(status).toBe(0);
    for (const option of ["--prompt", "--tokens", "--temperature", "--top-k", "--seed", "--position"]) expect(stdout).toContain(option);
  });
});
