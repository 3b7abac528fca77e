import { execFile, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseSafetensors, writeSafetensors } from "../../src/index.ts";
import { inPage, serveFolder } from "../support/browser.ts";

const root = join(import.meta.dirname, "../..");
const execute = promisify(execFile);
const read = (path: string) => readFileSync(join(root, path), "utf8");

interface Block {
  readonly language: string;
  /** What stands behind the language: `browser`, or the file that it is cut out of. */
  readonly note: string;
  readonly code: string;
  readonly line: number;
}

function blocksOf(path: string): Block[] {
  const text = read(path);
  return [...text.matchAll(/^```(\w*) ?(.*)\n([\s\S]*?)^```$/gm)].map(({ 1: language = "", 2: note = "", 3: code = "", index }) => ({
    language,
    note,
    code,
    line: text.slice(0, index).split("\n").length,
  }));
}

/** README.md has a test of its own. */
const documents = ["CONTRIBUTING.md", "examples/README.md", ...readdirSync(join(root, "docs")).map((name) => `docs/${name}`)];
const blocks = documents.flatMap((path) => blocksOf(path).map((block) => ({ ...block, path, name: `${path}, line ${block.line}` })));
const ofKind = (language: string, test: (block: (typeof blocks)[number]) => boolean = () => true) =>
  blocks.filter((block) => block.language === language && test(block)).map((block) => [block.name, block] as const);

const inNode = ofKind("js", ({ note }) => note === "");

/** What blocks find around them, made where a block, or something that it needs, has the name. In the order of their needs, last first. */
const AROUND: readonly (readonly [string, string])[] = [
  ["params", `{ "ho_proj.weight": numbersOf(128 * 64), "se_proj.weight": numbersOf(128 * 64), "ag_proj.weight": numbersOf(64 * 128) }`],
  ["config", "{ dim: 64, order: 2, orderExpand: 1, bias: false }"],
  ["text", "'The quick brown fox jumps over the lazy dog. '.repeat(200)"],
  ["controller", "new AbortController()"],
  ["signal", "new AbortController().signal"],
  ["bar", "document.createElement('progress')"],
  ["numbers", "numbersOf(10 * 64)"],
  ["requestAnyGpu", "globalThis.process ? requestNodeGpu : requestGpu"],
  // One for all blocks of a process: kernels are compiled once.
  ["gpu", "await (globalThis.sharedGpu ??= requestAnyGpu())"],
  ["hom", "await HomLayer.create(gpu, config, params)"],
  ["context", "Tensor.from(gpu, numbersOf(50 * 64), [1, 50, 64])"],
  ["query", "Tensor.from(gpu, numbersOf(4 * 64), [1, 4, 64])"],
  ["nodes", "context"],
  ["gradOutput", "context"],
  [
    "weights",
    `Object.fromEntries(Object.entries({ ho_proj: [128, 64], se_proj: [128, 64], ag_proj: [64, 128], "ffw.1": [64, 64], "ffw.3": [64, 64] })
      .flatMap(([key, [out, inner]]) => [[key + ".weight", numbersOf(out * inner)], [key + ".bias", numbersOf(out)]]))`,
  ],
  ["tokens", "Tensor.from(gpu, numbersOf(3 * 64), [1, 3, 64])"],
];
const mentions = (code: string, name: string) => new RegExp(String.raw`(?<![\w."])${name}\b(?!"|:)|\.\.\.${name}\b`).test(code);

const declares = (code: string, name: string) => new RegExp(String.raw`\b(?:const|let|function) (?:[[{][^=]*)?\b${name}\b`).test(code);

/** What would take too long for a test. */
const inShort = (code: string) => code.replaceAll("steps: 2000", "steps: 2").replaceAll("warmup: 100", "warmup: 1");

/** A block as a program: with what it mentions and does not say where it comes from. */
function completed(block: string, inNode: boolean, exported: ReadonlyMap<string, string>): string {
  const imports = [...block.matchAll(/^import [^;]*;$/gm)].map(([line]) => line);
  const code = inShort(block.replaceAll(/^import [^;]*;\n/gm, ""));
  let needed = code;
  const around: string[] = [];
  for (const [name, source] of AROUND.toReversed()) {
    if (!mentions(needed, name) || declares(code, name)) continue;
    around.unshift(`const ${name} = ${source};`);
    needed += `\n${source}`;
  }
  const names = [...exported.keys()].filter((name) => new RegExp(String.raw`\b${name}\b`).test(needed) && !mentions(imports.join("\n"), name));
  const entries = new Set(names.map((name) => exported.get(name) ?? "").filter((entry) => inNode || entry !== "homm-webgpu/node"));
  return [
    ...imports,
    ...[...entries].map((entry) => `import { ${names.filter((name) => exported.get(name) === entry).join(", ")} } from "${entry}";`),
    "const numbersOf = (n) => Float32Array.from({ length: n }, (_, i) => Math.sin(i) / 4);",
    ...around,
    `{\n${code}}`,
  ].join("\n");
}

/** The comment lines that a block ends with are what it prints. */
function printed(code: string): string | undefined {
  const lines = /(?:^\/\/ .*\n)+$(?![\s\S])/m.exec(code)?.[0];
  return lines?.replaceAll(/^\/\/ /gm, "");
}

/** Runs the blocks one after the other, and writes what each printed, or why it failed, into a file. */
const RUNNER = `
  import { writeFileSync } from "node:fs";
  import { format } from "node:util";
  const results = [];
  let printed = "";
  console.log = (...values) => { printed += format(...values) + "\\n"; };
  console.assert = (holds) => { if (!holds) throw new Error("an assertion of the block fails"); };
  for (const file of process.argv.slice(2)) {
    printed = "";
    const failure = await import("./" + file).then(() => undefined, (error) => error.stack);
    results.push({ printed, failure });
  }
  (await globalThis.sharedGpu)?.destroy();
  writeFileSync("results.json", JSON.stringify(results));
`;

let folder: string;
let ran: { readonly printed: string; readonly failure?: string }[];
let exported: Map<string, string>;

beforeAll(async () => {
  if (!existsSync(join(root, "dist/index.js"))) throw new Error("dist is missing: run `npm run build` first");
  folder = mkdtempSync(join(tmpdir(), "homm-webgpu-documents-"));
  writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
  mkdirSync(join(folder, "node_modules"));
  symlinkSync(root, join(folder, "node_modules/homm-webgpu"), "junction");
  symlinkSync(join(root, "node_modules/webgpu"), join(folder, "node_modules/webgpu"), "junction");
  copyFileSync(join(root, "demo/public/checkpoints/hlm_shakespeare.safetensors"), join(folder, "model.safetensors"));
  // As docs/weights.md has its Python save them; these were computed in PyTorch.
  const golden = (name: string) => [...parseSafetensors(readFileSync(join(root, `test/fixtures/golden/${name}.safetensors`)))];
  const layer = golden("hom_pad_k2e2_d12_n17_b3_grad").filter(({ name }) => /^(ho|se|ag)_proj/.test(name));
  writeFileSync(join(folder, "layer.safetensors"), writeSafetensors(Object.fromEntries(layer.map((tensor) => [`_orig_mod.${tensor.name}`, tensor]))));
  const renamed = { "in.xq": "x", "out.y": "y" } as Record<string, string>;
  const check = golden("hom_self_k1e2_d12_n7_b3").filter(({ name }) => name in renamed || /^(ho|se|ag)_proj/.test(name));
  writeFileSync(
    join(folder, "check.safetensors"),
    writeSafetensors(Object.fromEntries(check.map((tensor) => [renamed[tensor.name] ?? tensor.name, tensor]))),
  );
  const entries = Object.keys(JSON.parse(read("package.json")).exports).filter((entry) => !/shaders|package\.json/.test(entry));
  const list = `for (const entry of ${JSON.stringify(entries.map((entry) => entry.replace(".", "homm-webgpu")))}) console.log(entry, Object.keys(await import(entry)).join(" "));`;
  writeFileSync(join(folder, "list.mjs"), list);
  const { stdout } = await execute(process.execPath, ["list.mjs"], { cwd: folder });
  exported = new Map();
  for (const line of stdout.trim().split("\n")) {
    const [entry = "", ...names] = line.split(" ");
    for (const name of names) if (!exported.has(name)) exported.set(name, entry);
  }

  writeFileSync(join(folder, "runner.mjs"), RUNNER);
  const files = inNode.map(([, { code }], i) => {
    writeFileSync(join(folder, `block${i}.mjs`), completed(code, true, exported));
    return `block${i}.mjs`;
  });
  await execute(process.execPath, ["runner.mjs", ...files], { cwd: folder, timeout: 110_000 });
  ran = JSON.parse(readFileSync(join(folder, "results.json"), "utf8"));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("every block is of a kind that is tested here", () => {
  const kinds = ["js", "wgsl", "ts", "py", "sh", "text"];
  expect(blocks.filter(({ language }) => !kinds.includes(language)).map(({ name, language }) => `${name}: ${language}`)).toEqual([]);
  expect(blocks.filter(({ language, note }) => language === "js" && !["", "browser"].includes(note)).map(({ name }) => name)).toEqual([]);
});

describe("JavaScript", () => {
  it.each(inNode.map(([name, block], i) => [name, block, i] as const))("%s runs in Node", (_name, { code }, i) => {
    expect(ran[i]?.failure).toBeUndefined();
    expect(ran[i]?.printed).not.toContain("NaN");
    const lines = printed(code);
    if (lines !== undefined) expect(ran[i]?.printed).toBe(lines);
  });

  it.each(ofKind("js", ({ note }) => note === "browser"))("%s runs in a browser", async (_name, { code }) => {
    const { url, close } = await serveFolder(folder);
    const imports = Object.fromEntries([...new Set(exported.values())].map((entry) => [entry, moduleOf(entry)]));
    const program = completed(code, false, exported);
    const page = `<link rel="icon" href="data:,"><script type="importmap">${JSON.stringify({ imports })}</script><script type="module">${program}
      document.title = "done";</script>`;
    writeFileSync(join(folder, "index.html"), page);
    try {
      await inPage(url, async (page) => void (await page.waitForFunction(() => document.title === "done", undefined, { timeout: 60_000 })));
    } finally {
      close();
    }
  });
});

const moduleOf = (entry: string) => `/node_modules/homm-webgpu/dist/${entry.split("/")[1] ?? "index"}.js`;

describe("pieces of files", () => {
  it.each([...ofKind("ts"), ...ofKind("wgsl")])("%s is in its file", (_name, { note, code }) => {
    expect(read(note)).toContain(code);
  });
});

describe("Python", () => {
  const python = ["python3", "python"].find((name) => spawnSync(name, ["--version"]).status === 0);
  it.skipIf(!python).each(ofKind("py"))("%s is Python", (_name, { code }) => {
    const { status, stderr } = spawnSync(python ?? "", ["-c", "import ast, sys; ast.parse(sys.stdin.read())"], { input: code, encoding: "utf8" });
    expect(stderr).toBe("");
    expect(status).toBe(0);
  });
});

describe("commands", () => {
  const { scripts } = JSON.parse(read("package.json"));
  it.each([...ofKind("sh"), ...blocksOf("README.md").flatMap((block) => (block.language === "sh" ? [["README.md", block] as const] : []))])(
    "%s: there are such",
    (_name, { code }) => {
      const lines = code.split("\n").filter((line) => line.trim() && !line.startsWith("#"));
      expect(lines.length).toBeGreaterThan(0);
      for (const line of lines) {
        const command = line.replace(/^(\w+=\S+ )+/, "");
        const script = /^npm (?:run )?([\w:]+)/.exec(command)?.[1];
        const file = /^node (\S+)/.exec(command)?.[1];
        const known =
          script === "install" ||
          script === "ci" ||
          (script !== undefined && script in scripts) ||
          (file !== undefined && existsSync(join(root, file)));
        expect(known, line).toBe(true);
      }
    },
  );
});
