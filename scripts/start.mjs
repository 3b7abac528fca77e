// `npm start`: set-up, text from the checkpoint in the terminal, then the demo page.
//   npm start -- --once             end after the terminal part
//   npm start -- --port 8080        where to serve; the next free port if it is taken
//   npm start -- --install          as root on Debian or Ubuntu: may install Chromium with apt-get
// Everything else goes to demo/terminal.mjs, for example --prompt "Once" --tokens 200.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { noAdapterAdvice } from "./adapter.mjs";
import { buildIfStale, root, setUp } from "./setup.mjs";

const { once, install, port, forwarded } = readOptions(process.argv.slice(2));
const { adapter } = setUp({ install });
if (!adapter) {
  console.error(noAdapterAdvice);
  process.exit(1);
}
buildIfStale();
const terminal = spawnSync(process.execPath, ["demo/terminal.mjs", ...forwarded], {
  cwd: root,
  env: { ...process.env, ...adapter.env },
  stdio: "inherit",
});
if (terminal.status !== 0) process.exit(terminal.status ?? 1);
if (!once) await serveDemo();

/** @param {string[]} args */
function readOptions(args) {
  const result = { once: false, install: false, port: 5173, forwarded: /** @type {string[]} */ ([]) };
  for (let at = 0; at < args.length; at++) {
    const arg = args[at] ?? "";
    if (arg === "--once") result.once = true;
    else if (arg === "--install") result.install = true;
    else if (arg === "--port") result.port = readPort(args[++at]);
    else result.forwarded.push(arg);
  }
  return result;
}

/** @param {string | undefined} text */
function readPort(text) {
  const port = Number(text);
  if (Number.isInteger(port) && port > 0 && port < 65536) return port;
  console.error(`npm start: --port must be a number from 1 to 65535, got ${JSON.stringify(text)}`);
  process.exit(2);
}

async function serveDemo() {
  const { createServer } = await import("vite");
  const server = await createServer({ configFile: join(root, "vite.demo.config.ts"), server: { port } });
  await server.listen();
  console.log(`\nThe same in the browser: ${server.resolvedUrls?.local[0]}\nCtrl+C ends it.`);
}
