// `npm run docs`: the API reference, out of the docstrings, into docs-api/ (ignored by git). typedoc reads TypeScript up to 6, so it gets the 5.9 that is installed beside 7.
import { readFileSync } from "node:fs";
import { register } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "./setup.mjs";

register(
  `data:text/javascript,${encodeURIComponent(`
    export const resolve = (name, context, next) => next(name === "typescript" ? "typescript-5.9" : name, context);
  `)}`,
  pathToFileURL(`${root}/`),
);
/** Not a literal, lest its declarations be compiled: they want TypeScript 6. @type {string} */
const typedoc = "typedoc";
const { Application, TSConfigReader } = await import(typedoc);

/** Entry points as in the exports map, whose declarations lie where their sources do. */
const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const entries = Object.values(exports).flatMap(({ types }) => (types ? [types.replace("./dist/", "src/").replace(".d.ts", ".ts")] : []));

const app = await Application.bootstrapWithPlugins(
  {
    entryPoints: entries,
    tsconfig: "tsconfig.docs.json",
    // `npm run check` does that.
    skipErrorChecking: true,
    out: "docs-api",
    name: "homm-webgpu",
    includeVersion: true,
    readme: "README.md",
    // What their names say is said where they are used.
    intentionallyNotExported: ["Variant", "BITS", "StateOwner"],
    excludeInternal: true,
    excludePrivate: true,
    disableSources: true,
  },
  [new TSConfigReader()],
);
const project = await app.convert();
if (!project) process.exit(1);
app.validate(project);
await app.generateOutputs(project);
if (app.logger.hasErrors() || app.logger.hasWarnings()) process.exitCode = 1;
