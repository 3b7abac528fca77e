import { execFile } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = join(import.meta.dirname, "../..");
/** Inside of the repository, where its settings and packages are found. */
const folder = join(root, "node_modules/.cache/homm-webgpu/docstrings");

interface Example {
  readonly name: string;
  readonly code: string;
}

/** The code in the docstrings of a file: behind `@example` up to the next tag, or fenced. */
function examplesOf(file: string): Example[] {
  const text = readFileSync(join(root, "src", file), "utf8");
  return [...text.matchAll(/^ *\/\*\*[\s\S]*?\*\//gm)].flatMap((docstring) => {
    const doc = docstring[0].replaceAll(/^ *(\/\*\*|\* ?(?!\/)|\*\/)/gm, "");
    const line = text.slice(0, docstring.index).split("\n").length;
    const found = [/@example\n([\s\S]*?)(?=^@|(?![\s\S]))/m.exec(doc)?.[1], ...[...doc.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code]) => code)];
    return found.flatMap((code) => (code ? [{ name: `${file}, line ${line}`, code }] : []));
  });
}

const files = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ts"));
const examples = files.flatMap((file) => examplesOf(file.replaceAll("\\", "/")));

/** What every entry exports, by name; the first entry that has it. */
function exportedNames(): Map<string, string> {
  const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const names = new Map<string, string>();
  for (const [entry, target] of Object.entries<{ types?: string }>(exports)) {
    if (!target.types || entry === "./reference") continue;
    const source = readFileSync(join(root, target.types.replace("./dist/", "src/").replace(/\.d\.ts$/, ".ts")), "utf8");
    const listed = [...source.matchAll(/export (?!type)\{([^}]*)\}/g)].flatMap(([, list = ""]) => list.split(","));
    const declared = [...source.matchAll(/export (?:async )?function (\w+)/g)].map(([, name = ""]) => name);
    for (const name of [...listed, ...declared].map((text) => text.trim()).filter((text) => /^\w+$/.test(text))) {
      if (!names.has(name)) names.set(name, entry.replace(".", "homm-webgpu"));
    }
  }
  for (const name of ["parseSafetensors", "fetchSafetensors", "writeSafetensors", "normaliseKeys", "collectParams", "opfsCache", "Weights"])
    names.set(name, "homm-webgpu");
  return names;
}

/** What stands around an example may be anything, but what the package exports is what it is. */
function programOf({ code }: Example, exported: ReadonlyMap<string, string>, unknown: readonly string[]): string {
  const used = [...exported].filter(([name]) => new RegExp(String.raw`(?<![.\w])${name}\b(?!:)`).test(code));
  return [
    ...used.map(([name, entry]) => `import { ${name} } from "${entry}";`),
    'import type { Gpu as GpuType, Tensor as TensorType } from "homm-webgpu";',
    "declare const gpu: GpuType;",
    "declare const x: TensorType;",
    ...unknown.map((name) => `declare const ${name}: any;`),
    `{\n${code}}`,
    "export {};",
  ].join("\n");
}

async function compile(): Promise<string[]> {
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const output = await new Promise<string>((resolve) => {
    execFile(process.execPath, [tsc, "-p", folder, "--pretty", "false"], { cwd: folder }, (_error, stdout, stderr) => resolve(stdout + stderr));
  });
  return output.split("\n").filter((line) => line.includes("error TS"));
}

let errors: string[];

beforeAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const compilerOptions = { noUnusedLocals: false, noEmit: true, skipLibCheck: true };
  writeFileSync(
    join(folder, "tsconfig.json"),
    JSON.stringify({ extends: join(root, "tsconfig.json"), compilerOptions, include: ["*.ts", join(root, "types")], exclude: [] }),
  );
  const exported = exportedNames();
  const write = (unknown: (i: number) => string[]) =>
    examples.forEach((example, i) => {
      writeFileSync(join(folder, `example${i}.ts`), programOf(example, exported, unknown(i)));
    });
  write(() => []);
  const missing = (await compile()).flatMap((line) => {
    const [, i, name = ""] = /^example(\d+)\.ts.*error TS(?:2304|18004|2552): .*?'(\w+)'/.exec(line) ?? [];
    return i === undefined ? [] : [{ i: Number(i), name }];
  });
  write((i) => [...new Set(missing.filter((entry) => entry.i === i).map(({ name }) => name))]);
  errors = await compile();
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("examples in docstrings", () => {
  it("are found", () => {
    expect(examples.length).toBeGreaterThan(15);
  });

  it.each(examples.map((example, i) => [example.name, i] as const))("%s compiles", (_name, i) => {
    expect(errors.filter((line) => line.startsWith(`example${i}.ts`))).toEqual([]);
  });

  it("and nothing else is wrong with them", () => {
    expect(errors.filter((line) => !/^example\d+\.ts/.test(line))).toEqual([]);
  });
});
