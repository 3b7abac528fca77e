import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { nextVersion, notesOf, release } from "../../scripts/versions.mjs";

const root = join(import.meta.dirname, "../..");
const read = (path: string) => readFileSync(join(root, path), "utf8");
const manifest = JSON.parse(read("package.json"));

describe("the next version", () => {
  it.each([
    ["1.2.3", "### Fixed\n- a", "1.2.4"],
    ["1.2.3", "### Security\n- a", "1.2.4"],
    ["1.2.3", "### Added\n- a\n\n### Fixed\n- b", "1.3.0"],
    ["1.2.3", "### Deprecated\n- a", "1.3.0"],
    ["1.2.3", "### Added\n- a\n\n### Changed\n- b", "2.0.0"],
    ["1.2.3", "### Removed\n- a", "2.0.0"],
    ["0.2.3", "### Removed\n- a", "0.3.0"],
    ["0.2.3", "### Added\n- a", "0.3.0"],
    ["0.2.3", "### Fixed\n- a", "0.2.4"],
  ])("after %s with %j is %s", (current, notes, next) => {
    expect(nextVersion(current, notes)).toBe(next);
  });

  it("is refused without a change, or after a change of an unknown kind", () => {
    expect(() => nextVersion("1.0.0", "")).toThrow("nothing has changed");
    expect(() => nextVersion("1.0.0", "### Improved\n- a")).toThrow("no kind of change called Improved");
    expect(() => nextVersion("1.0", "### Fixed\n- a")).toThrow("a version must be three numbers such as 1.2.3, got 1.0");
  });
});

describe("a release", () => {
  const before = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- b\n\n## [0.1.0] - 2026-01-01\n\n- a\n";
  it("moves what was unreleased under its number, and leaves the rest", () => {
    const after = release(before, "0.2.0", "2026-02-03");
    expect(after).toBe("# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-02-03\n\n### Added\n\n- b\n\n## [0.1.0] - 2026-01-01\n\n- a\n");
    expect(notesOf(after, "Unreleased")).toBe("");
    expect(notesOf(after, "0.2.0")).toBe("### Added\n\n- b");
    expect(notesOf(after, "0.1.0")).toBe("- a");
    expect(notesOf(after, "0.3.0")).toBe("");
  });

  it("is refused twice, of nothing, and with another date", () => {
    expect(() => release(before, "0.1.0", "2026-02-03")).toThrow("0.1.0 is there already");
    expect(() => release(release(before, "0.2.0", "2026-02-03"), "0.3.0", "2026-02-04")).toThrow("nothing has changed");
    expect(() => release(before, "0.2.0", "3.2.2026")).toThrow("the date must be written as 2026-01-31");
  });

  it("is possible from what the changelog has now", () => {
    expect(nextVersion(manifest.version, notesOf(read("CHANGELOG.md"), "Unreleased"))).toMatch(/^\d+\.\d+\.\d+$/);
    const { status, stdout } = spawnSync(process.execPath, ["scripts/release.mjs", "--dry-run"], { cwd: root, encoding: "utf8" });
    expect(status).toBe(0);
    expect(stdout).toMatch(/^homm-webgpu \d+\.\d+\.\d+\n\n### Added\n/);
  });

  it("with another tag than package.json's version is not published", () => {
    const { status, stderr } = spawnSync(process.execPath, ["scripts/release.mjs", "--check", "v999.0.0"], { cwd: root, encoding: "utf8" });
    expect(status).toBe(1);
    expect(stderr).toContain(`the tag must be v${manifest.version}`);
  });
});

describe("publishing", () => {
  const workflow = read(".github/workflows/publish.yml");

  it("can attest where the package was built", () => {
    expect(workflow).toMatch(/^ {6}id-token: write$/m);
    expect(workflow).toMatch(/- run: npm publish --provenance --access public$/m);
    expect(manifest.publishConfig).toEqual({ access: "public", provenance: true });
    // npm refuses the attestation of another repository.
    expect(manifest.repository.url).toMatch(/^git\+https:\/\/github\.com\/[\w-]+\/[\w-]+\.git$/);
  });

  it("tests and builds first, in commands that exist", () => {
    const commands = [...workflow.matchAll(/- run: (.*)$/gm)].map(([, command]) => command);
    expect(commands).toEqual([
      "npm ci",
      'node scripts/release.mjs --check "$GITHUB_REF_NAME"',
      "npm test",
      "npm run build",
      "npm publish --provenance --access public",
    ]);
    expect(Object.keys(manifest.scripts)).toEqual(expect.arrayContaining(["test", "build", "release"]));
  });
});
