// `npm run release`: what a new version needs before it is published. The publishing itself is .github/workflows/publish.yml, started by the tag that this makes, so that npm can attest where the package was built.
//   npm run release -- --dry-run    says which version comes next, and why not yet
//   npm run release -- 1.0.0        another version than the changelog asks for
//   node scripts/release.mjs --check v1.2.3    what the workflow asks: do tag, package.json and changelog agree?
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { npm, root } from "./setup.mjs";
import { nextVersion, notesOf, release } from "./versions.mjs";

const { values, positionals } = parseArgs({
  options: { "dry-run": { type: "boolean", default: false }, check: { type: "string" } },
  allowPositionals: true,
});
const read = (/** @type {string} */ file) => readFileSync(join(root, file), "utf8");
const manifest = JSON.parse(read("package.json"));
const changelog = read("CHANGELOG.md");

try {
  if (values.check !== undefined) check(values.check);
  else prepare(positionals[0] ?? firstOr(nextVersion(manifest.version, notesOf(changelog, "Unreleased"))), values["dry-run"] === true);
} catch (error) {
  console.error(/** @type {Error} */ (error).message);
  process.exitCode = 1;
}

/** A version that was never released keeps its number. @param {string} next */
function firstOr(next) {
  return notesOf(changelog, manifest.version) === "" ? manifest.version : next;
}

/** @param {string} tag */
function check(tag) {
  if (tag !== `v${manifest.version}`) throw new Error(`the tag must be v${manifest.version}, as package.json has it, got ${tag}`);
  const notes = notesOf(changelog, manifest.version);
  if (notes === "") throw new Error(`CHANGELOG.md has nothing on ${manifest.version}`);
  console.log(notes);
}

/** @param {string} version @param {boolean} dryRun */
function prepare(version, dryRun) {
  const date = new Date().toISOString().slice(0, 10);
  const released = release(changelog, version, date);
  console.log(`${manifest.name} ${version}\n\n${notesOf(released, version)}\n`);
  const changes = git("status", "--porcelain").trim();
  const branch = git("rev-parse", "--abbrev-ref", "HEAD").trim();
  if (dryRun) {
    console.log(`branch ${branch}, ${changes ? "with changes that are not committed" : "clean"}`);
    return;
  }
  if (changes) throw new Error(`the working tree must be clean, got\n${changes}`);
  if (branch !== "main") throw new Error(`a release is made on main, got ${branch}`);
  if (npm(["test"]) !== 0) throw new Error("npm test must pass first");

  writeFileSync(join(root, "CHANGELOG.md"), released);
  for (const file of ["package.json", "package-lock.json"]) {
    const json = JSON.parse(read(file));
    json.version = version;
    if (json.packages) json.packages[""].version = version;
    writeFileSync(join(root, file), `${JSON.stringify(json, null, 2)}\n`);
  }
  git("commit", "--all", "--message", `Release ${version}`);
  git("tag", "--annotate", `v${version}`, "--message", version);
  console.log(`Committed and tagged. To publish: git push --follow-tags`);
}

/** @param {string[]} args */
function git(...args) {
  const { status, stdout, stderr } = spawnSync("git", args, { cwd: root, encoding: "utf8" });
  if (status !== 0) throw new Error(`git ${args.join(" ")} failed: ${stderr}`);
  return stdout;
}
