// Finds something that runs WebGPU, with nothing but Node. As a program: `node scripts/adapter.mjs [--install] [--json]`.
//
// Dawn (the npm package `webgpu`) and a headless browser are two separate searches:
//   Dawn     a GPU of this machine, else the SwiftShader of an installed browser, else that of the npm Chromium
//   browser  CHROME_PATH, else an installed Chrome, Chromium or Edge, else the npm Chromium
// WEBGPU_ADAPTER skips the search: `gpu`, `swiftshader`, `lavapipe`, or the path of a Vulkan driver's JSON manifest.
import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const npmChromium = join(root, "node_modules/@sparticuz/chromium");

export const noAdapterAdvice = `No WebGPU adapter was found. Do one of these, then run the command again:
  npm ci                              installs a headless Chromium with the software adapter SwiftShader (Linux x64, no root needed)
  npm start -- --install              as root on Debian or Ubuntu: installs Chromium with apt-get (npm test takes the same option)
  install Chrome, Chromium or Edge    on any system; CHROME_PATH names one in an unusual place`;

/**
 * @typedef {{ icd: string, loaderFolder?: string, from: string }} SwiftShader a Vulkan driver's manifest and, where the browser brings one, the folder of its Vulkan loader
 * @typedef {{ executable: string, env: Record<string, string>, from: string }} Browser
 * @typedef {{ vendor: string, architecture: string, description: string, software: boolean, f16: boolean, subgroups: [number, number] }} AdapterInfo
 * @typedef {{ info: AdapterInfo, env: Record<string, string>, from: string }} DawnAdapter `env` makes a new Node process find the same adapter
 */

const linuxBrowserFolders = [
  "/usr/lib/chromium",
  "/usr/lib/chromium-browser",
  "/opt/google/chrome",
  "/opt/google/chrome-beta",
  "/opt/google/chrome-unstable",
  "/opt/chromium.org/chromium",
  "/opt/microsoft/msedge",
];

/** The programs to look for, best first; a folder's own SwiftShader lies beside the program on Linux. */
function installedBrowsers() {
  if (process.platform === "darwin") {
    return ["Google Chrome", "Chromium", "Microsoft Edge"].map((name) => `/Applications/${name}.app/Contents/MacOS/${name}`).filter(existsSync);
  }
  if (process.platform === "win32") {
    const places = [process.env["ProgramFiles"], process.env["ProgramFiles(x86)"], process.env["LOCALAPPDATA"]].filter(
      (place) => place !== undefined,
    );
    const programs = ["Google\\Chrome\\Application\\chrome.exe", "Chromium\\Application\\chrome.exe", "Microsoft\\Edge\\Application\\msedge.exe"];
    return places.flatMap((place) => programs.map((program) => join(place, program))).filter(existsSync);
  }
  const programs = linuxBrowserFolders.flatMap((folder) => ["chromium", "chrome", "msedge"].map((name) => join(folder, name))).filter(existsSync);
  // Debian's wrapper sets up what the bare program needs.
  return programs.map((program) => (program === "/usr/lib/chromium/chromium" && existsSync("/usr/bin/chromium") ? "/usr/bin/chromium" : program));
}

/** @returns {SwiftShader | undefined} */
export function findSwiftShader() {
  for (const folder of linuxBrowserFolders) {
    const icd = join(folder, "vk_swiftshader_icd.json");
    if (existsSync(icd)) return { icd, from: folder, ...(existsSync(join(folder, "libvulkan.so.1")) && { loaderFolder: folder }) };
  }
  const folder = unpackNpmChromium();
  return folder === undefined
    ? undefined
    : { icd: join(folder, "vk_swiftshader_icd.json"), loaderFolder: folder, from: "the npm package @sparticuz/chromium" };
}

/** @returns {Browser | undefined} */
export function findBrowser() {
  const named = process.env["CHROME_PATH"];
  if (named) {
    if (!existsSync(named)) throw new Error(`CHROME_PATH must name a program, got ${JSON.stringify(named)}; no such file`);
    return { executable: named, env: {}, from: "CHROME_PATH" };
  }
  const [installed] = installedBrowsers();
  if (installed) return { executable: installed, env: {}, from: installed };
  const folder = unpackNpmChromium();
  // It brings its own NSS and expat.
  return folder === undefined
    ? undefined
    : {
        executable: join(folder, "chromium"),
        env: { LD_LIBRARY_PATH: withFolders([folder, join(folder, "lib")]) },
        from: "the npm package @sparticuz/chromium",
      };
}

/** @param {string[]} folders */
function withFolders(folders) {
  const present = process.env["LD_LIBRARY_PATH"]?.split(delimiter) ?? [];
  return [...folders.filter((folder) => !present.includes(folder)), ...present].join(delimiter);
}

/** Unpacks the npm Chromium once (190 MB); concurrent callers each unpack aside and the first rename wins. */
function unpackNpmChromium() {
  if (process.platform !== "linux" || process.arch !== "x64") return undefined;
  if (!existsSync(join(npmChromium, "bin"))) return undefined;
  const { version } = JSON.parse(readFileSync(join(npmChromium, "package.json"), "utf8"));
  const folder = join(root, `node_modules/.cache/homm-webgpu/chromium-${version}`);
  if (existsSync(folder)) return folder;
  mkdirSync(dirname(folder), { recursive: true });
  const aside = mkdtempSync(`${folder}-`);
  const unpacked = (/** @type {string} */ file) => brotliDecompressSync(readFileSync(join(npmChromium, "bin", file)));
  writeFileSync(join(aside, "chromium"), unpacked("chromium.br"), { mode: 0o755 });
  for (const archive of ["al2023.tar.br", "swiftshader.tar.br"]) extractTar(unpacked(archive), aside);
  try {
    renameSync(aside, folder);
  } catch (error) {
    rmSync(aside, { recursive: true, force: true });
    if (!existsSync(folder)) throw error;
  }
  return folder;
}

/** @param {Buffer} tar @param {string} folder */
function extractTar(tar, folder) {
  const block = 512;
  for (let at = 0; at + block <= tar.length; ) {
    const name = tar.toString("utf8", at, at + 100).replace(/\0.*$/s, "");
    if (name === "") break;
    const size = Number.parseInt(tar.toString("ascii", at + 124, at + 136), 8);
    const isFile = tar[at + 156] === 0x30 || tar[at + 156] === 0;
    if (isFile) {
      const file = join(folder, name);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, tar.subarray(at + block, at + block + size), { mode: 0o755 });
    }
    at += block + Math.ceil(size / block) * block;
  }
}

/** What a new Node process needs in its environment to reach this driver through Dawn. @param {SwiftShader} driver */
function driverEnvironment({ icd, loaderFolder }) {
  return { VK_ICD_FILENAMES: icd, ...(loaderFolder && { LD_LIBRARY_PATH: withFolders([loaderFolder]) }) };
}

function lavapipeManifest() {
  for (const folder of ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"]) {
    const name = existsSync(folder) && readdirSync(folder).find((file) => file.startsWith("lvp_icd"));
    if (name) return join(folder, name);
  }
  throw new Error(
    "WEBGPU_ADAPTER=lavapipe: no lvp_icd*.json under /usr/share/vulkan/icd.d; install mesa-vulkan-drivers (25 or newer) or name the manifest's path instead",
  );
}

/** Asks Dawn for an adapter in a process of its own: a driver that crashes cannot take us along. @param {Record<string, string>} env @returns {AdapterInfo | undefined} */
function probe(env) {
  const program = `
    import { create, globals } from "webgpu";
    Object.assign(globalThis, globals);
    const gpu = (globalThis.dawn = create([]));
    const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
    if (adapter) {
      const { vendor, architecture, description, subgroupMinSize, subgroupMaxSize } = adapter.info;
      const software = adapter.info.isFallbackAdapter || /swiftshader|llvmpipe|lavapipe|basic render/i.test(description + architecture);
      console.log("ADAPTER " + JSON.stringify({ vendor, architecture, description, software, f16: adapter.features.has("shader-f16"), subgroups: [subgroupMinSize, subgroupMaxSize] }));
    }
    process.exit(0);`;
  const result = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    cwd: root,
    env: { ...process.env, ...quietMesa(), ...env },
    encoding: "utf8",
    timeout: 60_000,
  });
  const found = /^ADAPTER (.*)$/m.exec(result.stdout ?? "");
  return found ? JSON.parse(/** @type {string} */ (found[1])) : undefined;
}

/** Mesa complains on stderr when the variable is missing. @returns {Record<string, string>} */
function quietMesa() {
  return process.platform === "linux" && !process.env["XDG_RUNTIME_DIR"] ? { XDG_RUNTIME_DIR: tmpdir() } : {};
}

/** @returns {DawnAdapter | undefined} */
export function findDawnAdapter() {
  const wanted = process.env["WEBGPU_ADAPTER"] ?? "";
  if (wanted === "lavapipe") return required(`WEBGPU_ADAPTER=${wanted}`, fromManifest(lavapipeManifest(), "lavapipe"));
  if (wanted.endsWith(".json")) return required(`WEBGPU_ADAPTER=${wanted}`, fromManifest(wanted, wanted));
  if (wanted === "gpu") return required(`WEBGPU_ADAPTER=${wanted}`, attempt({}, "this machine's driver"));
  if (wanted !== "" && wanted !== "swiftshader") {
    throw new Error(`WEBGPU_ADAPTER must be gpu, swiftshader, lavapipe or the path of a driver's .json, got ${JSON.stringify(wanted)}`);
  }
  const named = process.env["VK_DRIVER_FILES"] ?? process.env["VK_ICD_FILENAMES"];
  if (wanted === "" && named) return required(`VK_ICD_FILENAMES=${named}`, fromManifest(named, named));
  const own = wanted === "" ? attempt({}, "this machine's driver") : undefined;
  if (own && !own.info.software) return own;
  const swiftShader = findSwiftShader();
  return (swiftShader && attempt(driverEnvironment(swiftShader), swiftShader.from)) ?? own;
}

/** @param {Record<string, string>} env @param {string} from @returns {DawnAdapter | undefined} */
function attempt(env, from) {
  const info = probe(env);
  return info && { info, env: { ...quietMesa(), ...env }, from };
}

/** A driver by its manifest, with this system's Vulkan loader or, where there is none, a browser's. @param {string} icd @param {string} from */
function fromManifest(icd, from) {
  const direct = attempt({ VK_ICD_FILENAMES: icd }, from);
  const loaderFolder = direct ? undefined : findSwiftShader()?.loaderFolder;
  return loaderFolder ? attempt(driverEnvironment({ icd, loaderFolder, from }), from) : direct;
}

/** @param {string} setting @param {DawnAdapter | undefined} adapter */
function required(setting, adapter) {
  if (!adapter) throw new Error(`${setting}: Dawn finds no adapter there; unset it to take what this machine has`);
  return adapter;
}

/** Installs Debian's Chromium. Returns false where that is not possible. */
export function installChromium() {
  const isRoot = process.getuid?.() === 0;
  if (process.platform !== "linux" || !isRoot || !canExecute("/usr/bin/apt-get")) return false;
  const options = { stdio: /** @type {const} */ ("inherit"), env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" } };
  spawnSync("apt-get", ["update", "-qq"], options);
  return spawnSync("apt-get", ["install", "-y", "-qq", "--no-install-recommends", "chromium", "libvulkan1"], options).status === 0;
}

/** @param {string} file */
function canExecute(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Flags for headless WebGPU; the first row keeps a browser without a network from trying to reach one.
 * @param {{ canvas?: boolean }} options `canvas`: pages draw with WebGPU, too; without a GPU the rest of the browser then has to draw on SwiftShader as well
 */
export function browserArguments({ canvas = false } = {}) {
  return [
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--enable-webgpu-developer-features",
    "--enable-features=Vulkan",
    ...(process.env["WEBGPU_ADAPTER"] === "gpu" ? [] : ["--use-webgpu-adapter=swiftshader"]),
    ...(process.env["WEBGPU_ADAPTER"] !== "gpu" && canvas ? ["--use-vulkan=swiftshader", "--use-angle=swiftshader"] : []),
  ];
}

/** @param {DawnAdapter} adapter */
export function describeAdapter({ info, from }) {
  const name = info.description || [info.vendor, info.architecture].filter(Boolean).join(" ") || "unnamed adapter";
  return `${name} (${info.software ? "software" : "GPU"}, f16 ${info.f16 ? "yes" : "no"}, subgroups ${info.subgroups.join(" to ")}) from ${from}`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv.includes("--install") && !findSwiftShader()) installChromium();
  const adapter = findDawnAdapter();
  const browser = findBrowser();
  if (process.argv.includes("--json")) console.log(JSON.stringify({ adapter, browser }));
  else {
    console.log(`Dawn:    ${adapter ? describeAdapter(adapter) : "none"}`);
    console.log(`browser: ${browser ? browser.executable : "none"}`);
  }
  if (!adapter) {
    console.error(noAdapterAdvice);
    process.exitCode = 1;
  }
}
