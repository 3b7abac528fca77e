import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Packs the shaders that are imported as text. @returns {import("vite").Plugin} */
export function packedShaders() {
  const pack = wgslPacker(readShaders(), hostConstants());
  return {
    name: "packed-shaders",
    enforce: "pre",
    load: (id) => (id.endsWith(".wgsl?raw") ? `export default ${JSON.stringify(pack(readFileSync(id.slice(0, -"?raw".length), "utf8")))};` : null),
  };
}

/**
 * A shader without what only people read: comments, indentation, blanks around signs. The lines stay, so that a compiler's line numbers are those of the file.
 * @param {string} source
 */
export function bareWgsl(source) {
  return source
    .split("\n")
    .map((line) =>
      line
        .replace(/\/\/.*/, "")
        .trim()
        // Two signs that stand apart stay apart: `a - -b` is not `a--b`.
        .replace(/(?<=[\w)\]}>,;:({[]) *([-+*/%<>=!&|^]+|[,;:(){}[\]]) *(?=[\w()[\]{}@,;]|$)/g, "$1"),
    )
    .join("\n");
}

/** Every shader of the package. */
function readShaders() {
  const folder = join(import.meta.dirname, "../shaders");
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".wgsl"));
  return names.sort().map((name) => readFileSync(join(folder, name), "utf8"));
}

/** Constants that src/ops/op.ts declares after the shaders: they may complete a name of a shader, or take the place of one. */
function hostConstants() {
  const host = readFileSync(join(import.meta.dirname, "../src/ops/op.ts"), "utf8");
  return [...host.matchAll(/const (\w+): u32 =/g)].map(([, name = ""]) => name);
}

/** Short words of the language that no name may be. */
const WORDS = new Set(["as", "do", "fn", "id", "if", "in", "is", "of", "or", "up", "us"]);
const LETTERS = [..."abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"];
const PAIRS = LETTERS.flatMap((a) => LETTERS.map((b) => a + b)).filter((pair) => !WORDS.has(pair));
const NUMBERED = LETTERS.flatMap((a) => [..."0123456789"].map((digit) => a + digit));

/** @typedef {{ text: string, role: "member" | "name" | "other", declares?: "module" | "local" | "member" | "host" | "uniform", scope: number }} Token */

/**
 * The tokens of a bare shader, blanks among them, and what each name is: of the module, local to a function, or a member of a struct. A scope is a
 * function's number, 0 outside of all.
 * @param {string} bare
 * @returns {Token[]}
 */
function tokens(bare) {
  const texts = bare.match(/[A-Za-z_]\w*|\d[\w.]*(?:(?<=[eE])[-+]\d+)?\w*|\s+|./g) ?? [];
  const signs = texts.flatMap((text, i) => (text.trim() ? [i] : []));
  let [depth, scope, functions, struct] = [0, 0, 0, ""];
  /** @type {Token[]} */
  const result = texts.map((text) => ({ text, role: "other", scope: 0 }));
  signs.forEach((at, i) => {
    const [before = "", text, after = ""] = [-1, 0, 1].map((step) => texts[signs[i + step] ?? -1] ?? "");
    const token = /** @type {Token} */ (result[at]);
    if (text === "fn" && depth === 0) scope = ++functions;
    if (text === "struct") struct = after;
    token.scope = scope;
    if (/^[A-Za-z_]/.test(text ?? "") && before !== "@") {
      const typed = after === ":";
      const space = /var<([^>]*)>$/.exec(
        signs
          .slice(Math.max(0, i - 8), i)
          .map((s) => texts[s])
          .join(""),
      )?.[1];
      token.role = before === "." || (struct && depth === 1 && typed) ? "member" : "name";
      if (token.role === "member" && before !== ".") token.declares = struct === "Shape" ? "uniform" : "member";
      else if (struct === text) token.declares = text === "Shape" ? "host" : "module";
      else if (depth === 0 && ["fn", "const", "alias"].includes(before)) token.declares = "module";
      else if (depth === 0 && space !== undefined) token.declares = /^(workgroup|private)$/.test(space) ? "module" : "host";
      else if (scope > 0 && (["let", "var", "const"].includes(before) || (depth === 1 && typed))) token.declares = "local";
    }
    if (text === "{" || text === "(") depth++;
    if (text === "}" || text === ")") depth--;
    if (text === "}" && depth === 0) [scope, struct] = [0, ""];
  });
  // The argument of @builtin(...) is no name.
  return result.map((token, i) => (texts[i - 1] === "(" && texts[i - 2] === "builtin" ? { ...token, role: "other" } : token));
}

/** Keys by how often they occur, ties by their letters. @param {Map<string, number>} counts */
const byCount = (counts) => [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1)).map(([key]) => key);

/** @param {Map<string, number>} counts @param {string} key */
const count = (counts, key) => counts.set(key, (counts.get(key) ?? 0) + 1);

/**
 * What shortens the names in these sources, which are compiled together in any combination: a name of the module or a member becomes the same everywhere, a
 * local name takes a letter that no other local name of its functions has. Bindings and uniforms, which the host finds by name, stay.
 * @param {readonly string[]} sources @param {readonly string[]} [kept] names that stay as well
 * @returns {(source: string) => string} bare, with short names, line by line the same
 */
export function wgslPacker(sources, kept = []) {
  const files = sources.map((source) => tokens(bareWgsl(source)));
  const all = files.flatMap((file, number) => file.map((token) => ({ ...token, scope: token.scope && `${number}.${token.scope}` })));
  const declared = (/** @type {string} */ kind) => all.flatMap(({ text, declares }) => (declares === kind ? [text] : []));
  const host = new Set(["main", ...kept, ...declared("host")]);
  const uniforms = new Set(declared("uniform"));
  const ofModule = new Set(declared("module").filter((name) => !host.has(name)));
  const ofFunctions = new Set(declared("local").filter((name) => !host.has(name)));
  // A member that could be a vector's component stays.
  const ofStructs = new Set(declared("member").filter((name) => !uniforms.has(name) && !/^([xyzw]{1,4}|[rgba]{1,4})$/.test(name)));

  /** @type {Record<"module" | "member" | "local", Map<string, number>>} */
  const counts = { module: new Map(), member: new Map(), local: new Map() };
  /** Local names of each function. @type {Map<string | number, Set<string>>} */
  const functions = new Map();
  const free = new Set([...LETTERS, ...NUMBERED, ...PAIRS]);
  for (const { text, declares, scope } of all) {
    if (declares === "local") functions.set(scope, (functions.get(scope) ?? new Set()).add(text));
  }
  for (const { text, role, scope } of all) {
    // Here it is a name of the language.
    if (role === "name" && !functions.get(scope)?.has(text)) ofFunctions.delete(text);
  }
  for (const { text, role } of all) {
    if (role === "member") {
      if (ofStructs.has(text)) count(counts.member, text);
    } else if (ofModule.has(text)) count(counts.module, text);
    else if (ofFunctions.has(text)) count(counts.local, text);
    else free.delete(text);
  }

  const pairs = PAIRS.filter((name) => free.has(name));
  const singles = [...LETTERS, ...NUMBERED].filter((name) => free.has(name));
  const names = new Map(byCount(counts.module).map((name, i) => [name, pairs[i] ?? name]));
  const members = new Map(byCount(counts.member).map((name, i) => [name, singles.filter((short) => !/^[xyzwrgba]$/.test(short))[i] ?? name]));
  for (const name of byCount(counts.local)) {
    const together = [...functions.values()].filter((locals) => locals.has(name)).flatMap((locals) => [...locals]);
    const taken = new Set(together.map((other) => names.get(other)));
    names.set(name, singles.find((short) => !taken.has(short)) ?? name);
  }
  return (source) =>
    tokens(bareWgsl(source))
      .map(({ text, role }) => (role === "other" ? undefined : (role === "member" ? members : names).get(text)) ?? text)
      .join("");
}
