import { execFile } from "node:child_process";
import { existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

const root = join(import.meta.dirname, "../..");
const execute = promisify(execFile);
const shell = process.platform === "win32";

/** Packs the built package as npm publishes it, and returns the path of the archive. */
export async function pack(folder: string): Promise<string> {
  if (!existsSync(join(root, "dist/index.js"))) throw new Error("dist is missing: run `npm run build` first");
  const { stdout } = await execute("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", folder], { cwd: root, shell });
  return join(folder, JSON.parse(stdout)[0].filename);
}

/** A user's folder in which the packed package is installed; `links` are packages that the repository has, too. */
export async function install(folder: string, tarball: string, links: readonly string[] = []): Promise<void> {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
  await execute("npm", ["install", tarball, "--offline", "--no-audit", "--no-fund", "--ignore-scripts"], { cwd: folder, shell });
  for (const name of links) {
    mkdirSync(dirname(join(folder, "node_modules", name)), { recursive: true });
    symlinkSync(join(root, "node_modules", name), join(folder, "node_modules", name), "junction");
  }
}
