import { readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import ts from "typescript-5.9";
import { describe, expect, it } from "vitest";

const root = join(import.meta.dirname, "../..");
const files = new Map<string, ts.SourceFile>();

function parse(path: string): ts.SourceFile {
  const known = files.get(path);
  if (known) return known;
  const file = ts.createSourceFile(path, readFileSync(path, "utf8"), ts.ScriptTarget.ES2023, true);
  files.set(path, file);
  return file;
}

type Declaration = ts.Statement & { readonly name?: ts.Identifier };

/** What a module exports, by name, with the statement that declares it. */
function exportsOf(path: string): Map<string, ts.Statement> {
  const found = new Map<string, ts.Statement>();
  for (const statement of parse(path).statements) {
    if (ts.isExportDeclaration(statement) && statement.moduleSpecifier) {
      const target = join(dirname(path), (statement.moduleSpecifier as ts.StringLiteral).text);
      const { exportClause } = statement;
      if (!exportClause) for (const [name, node] of exportsOf(target)) found.set(name, node);
      else if (ts.isNamedExports(exportClause)) {
        for (const { name, propertyName } of exportClause.elements) {
          const node = exportsOf(target).get((propertyName ?? name).text);
          if (node) found.set(name.text, node);
        }
      }
    } else if (ts.canHaveModifiers(statement) && ts.getModifiers(statement)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)) {
      if (ts.isVariableStatement(statement)) for (const { name } of statement.declarationList.declarations) found.set(name.getText(), statement);
      else if ((statement as Declaration).name) found.set((statement as Declaration).name?.text ?? "", statement);
    }
  }
  return found;
}

/** The docstring right before a node. */
function docstringOf(node: ts.Node): string {
  return ts
    .getJSDocCommentsAndTags(node)
    .map((doc) => doc.getText())
    .join("\n");
}

const isHidden = (node: ts.ClassElement): boolean =>
  (node.name !== undefined && ts.isPrivateIdentifier(node.name)) ||
  (ts.getCombinedModifierFlags(node) & (ts.ModifierFlags.Private | ts.ModifierFlags.Protected)) !== 0 ||
  docstringOf(node).includes("@internal");

/** Names of a class's methods and accessors that nothing says what they do. `destroy` and `[Symbol.dispose]` say so themselves. */
function undocumentedMembers(node: ts.Statement): string[] {
  if (!ts.isClassDeclaration(node)) return [];
  const overloaded = new Map<string, string>();
  for (const member of node.members) {
    if (!ts.isMethodDeclaration(member) && !ts.isGetAccessor(member)) continue;
    const name = member.name.getText();
    if (!isHidden(member) && !name.startsWith("[Symbol.")) overloaded.set(name, (overloaded.get(name) ?? "") + docstringOf(member));
  }
  return [...overloaded].flatMap(([name, text]) => (text === "" ? [name] : []));
}

const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { exports: Record<string, { types?: string }> };
const entries = Object.entries(exports).flatMap(([entry, { types }]) =>
  types ? [[entry, join(root, types.replace("./dist/", "src/").replace(/\.d\.ts$/, ".ts"))] as const] : [],
);

describe.each(entries)("%s", (_entry, path) => {
  const found = exportsOf(path);

  it("exports something", () => {
    expect(found.size).toBeGreaterThan(0);
  });

  it("says of every name what it is", () => {
    const silent = [...found].filter(([, node]) => docstringOf(node) === "");
    expect(silent.map(([name, node]) => `${name} (${relative(root, node.getSourceFile().fileName)})`)).toEqual([]);
  });

  it("says of every method what it does", () => {
    const silent = [...found].flatMap(([name, node]) => undocumentedMembers(node).map((member) => `${name}.${member}`));
    expect(silent).toEqual([]);
  });
});
