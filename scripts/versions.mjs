// What the changelog says of versions, as text in and text out.

/** The text below a version's heading, up to the next version. @param {string} changelog @param {string} version "Unreleased", or a number */
export function notesOf(changelog, version) {
  const sections = changelog.split(/^## /m);
  const section = sections.find((text) => text.startsWith(`[${version}]`));
  return section?.slice(section.indexOf("\n") + 1).trim() ?? "";
}

/**
 * The version that semantic versioning asks for after `current`: what changes or removes something is a major one, what adds something a minor one, what only
 * repairs a patch. Before 1.0.0 the first two are minor.
 * @param {string} current @param {string} notes the changes since, under the headings of Keep a Changelog
 */
export function nextVersion(current, notes) {
  const [major = 0, minor = 0, patch = 0] = parse(current);
  const kinds = new Set([...notes.matchAll(/^### (\w+)/gm)].map(([, kind]) => kind ?? ""));
  const unknown = [...kinds].filter((kind) => !["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"].includes(kind));
  if (unknown.length) throw new Error(`CHANGELOG.md: there is no kind of change called ${unknown.join(", ")}`);
  if (kinds.size === 0) throw new Error("CHANGELOG.md: nothing has changed under [Unreleased]");
  const breaking = kinds.has("Changed") || kinds.has("Removed");
  const adding = kinds.has("Added") || kinds.has("Deprecated");
  if (breaking && major > 0) return `${major + 1}.0.0`;
  if (breaking || adding) return `${major}.${minor + 1}.0`;
  return `${major}.${minor}.${patch + 1}`;
}

/** The changelog with what was unreleased under a heading of its own. @param {string} changelog @param {string} version @param {string} date as 2026-01-31 */
export function release(changelog, version, date) {
  parse(version);
  if (!/^\d{4}-\d\d-\d\d$/.test(date)) throw new Error(`the date must be written as 2026-01-31, got ${date}`);
  if (notesOf(changelog, "Unreleased") === "") throw new Error("CHANGELOG.md: nothing has changed under [Unreleased]");
  if (notesOf(changelog, version) !== "") throw new Error(`CHANGELOG.md: ${version} is there already`);
  return changelog.replace("## [Unreleased]\n", `## [Unreleased]\n\n## [${version}] - ${date}\n`);
}

/** @param {string} version @returns {number[]} */
function parse(version) {
  const numbers = /^(\d+)\.(\d+)\.(\d+)$/.exec(version)?.slice(1).map(Number);
  if (!numbers) throw new Error(`a version must be three numbers such as 1.2.3, got ${version}`);
  return numbers;
}
