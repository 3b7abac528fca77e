import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  GRADIENT_F32,
  LAYER_F16,
  LAYER_F32,
  LAYER_GRADIENT_F32,
  LAYER_I4,
  LAYER_I8,
  MODEL_F32,
  REFERENCE_GOLDEN,
  REFERENCE_GRADIENT,
  STREAM_F32,
  TRAJECTORY_LOSS,
  TRAJECTORY_WEIGHTS,
} from "../support/tolerances.ts";

const root = join(import.meta.dirname, "../..");
const read = (path: string) => readFileSync(join(root, path), "utf8");

describe("links between the documents", () => {
  const documents = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "examples/README.md",
    ...readdirSync(join(root, "docs")).map((name) => `docs/${name}`),
  ];
  it.each(documents)("%s links to files that exist", (document) => {
    const targets = [...read(document).matchAll(/\]\((?!https?:)([^)#]+)[^)]*\)/g)].map(([, target]) => target ?? "");
    expect(targets.filter((target) => !existsSync(join(root, dirname(document), target)))).toEqual([]);
  });

  /** The names under which headings can be linked to. */
  const anchorsOf = (path: string) =>
    [...read(path).matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\w\s-]/g, "")
        .replaceAll(" ", "-"),
    );

  it.each(documents)("%s links to headings that exist", (document) => {
    const links = [...read(document).matchAll(/\]\((?!https?:)([^)#]*)#([^)]+)\)/g)];
    const broken = links.filter(([, target = "", anchor = ""]) => {
      const path = target === "" ? document : join(dirname(document), target);
      return !anchorsOf(path).includes(anchor);
    });
    expect(broken.map(([link]) => link)).toEqual([]);
  });
});

describe("docs/kernels.md", () => {
  const sections = new Map(
    read("docs/kernels.md")
      .split(/^### /m)
      .slice(1)
      .map((section) => [section.split("\n", 1)[0] ?? "", section]),
  );
  const wgsl = (folder: string) =>
    readdirSync(join(root, folder))
      .filter((name) => name.endsWith(".wgsl"))
      .map((name) => name.slice(0, -".wgsl".length));

  it("has a section for every kernel, and for nothing else", () => {
    expect([...sections.keys()].sort()).toEqual(wgsl("shaders").sort());
  });

  it.each(wgsl("shaders"))("lists the bindings of %s", (name) => {
    const declared = [...read(`shaders/${name}.wgsl`).matchAll(/@binding\(\d+\) var<[^>]+> (\w+):/g)].map(([, binding]) => binding);
    const line = /^- Bindings: (.*)$/m.exec(sections.get(name) ?? "")?.[1] ?? "";
    expect([...line.matchAll(/`(\w+)`/g)].map(([, binding]) => binding)).toEqual(declared);
  });

  it("names every shared file", () => {
    const named = [...read("docs/kernels.md").matchAll(/`(\w+)\.wgsl`/g)].map(([, name]) => name);
    expect(wgsl("shaders/shared").filter((name) => !named.includes(name))).toEqual([]);
  });
});

describe("docs/numerics.md", () => {
  it("gives the bounds of test/support/tolerances.ts", () => {
    const rows = [...read("docs/numerics.md").matchAll(/^\| `(\w+)` \| (\S+) \|/gm)].map(([, name, value]) => [name, Number(value)]);
    expect(Object.fromEntries(rows)).toEqual({
      LAYER_F32,
      LAYER_GRADIENT_F32,
      MODEL_F32,
      GRADIENT_F32,
      TRAJECTORY_LOSS,
      TRAJECTORY_WEIGHTS,
      STREAM_F32,
      LAYER_F16,
      LAYER_I8,
      LAYER_I4,
      REFERENCE_GOLDEN,
      REFERENCE_GRADIENT,
    });
  });
});
