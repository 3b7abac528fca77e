import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, expect } from "vitest";
import { browserArguments, findBrowser, noAdapterAdvice } from "../../scripts/adapter.mjs";

let launched: Promise<Browser> | undefined;

function launch(): Promise<Browser> {
  const found = findBrowser();
  if (!found) throw new Error(noAdapterAdvice);
  const env = { ...process.env, ...found.env } as Record<string, string>;
  return chromium.launch({ executablePath: found.executable, args: browserArguments({ canvas: true }), env });
}

/**
 * Lets `act` use a page of its own, in which no error or warning may appear, of the page, its workers or its GPU, and no request to another server.
 * @param expected problems that belong to what is tried
 */
export async function inPage(url: string, act: (page: Page) => Promise<void>, expected?: RegExp): Promise<void> {
  launched ??= launch();
  const context = await (await launched).newContext();
  try {
    const page = await context.newPage();
    page.setDefaultTimeout(60_000);
    const problems: string[] = [];
    page.on("pageerror", (error) => problems.push(String(error)));
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type()) && !expected?.test(message.text())) problems.push(message.text());
    });
    page.on("request", (request) => {
      const { protocol, origin } = new URL(request.url());
      if (!["data:", "blob:"].includes(protocol) && origin !== new URL(url).origin) problems.push(`a request to ${request.url()}`);
    });
    await page.goto(url);
    await act(page).catch((error) => {
      throw problems.length ? new Error(`${error}\nthe page reported: ${problems.join("\n")}`, { cause: error }) : error;
    });
    expect(problems, "what the page reported").toEqual([]);
  } finally {
    await context.close();
  }
}

afterAll(async () => {
  await (await launched)?.close();
});

const TYPES: Record<string, string> = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css" };

/** A plain web server on a folder. `special` answers first, where it wants to. */
export async function serveFolder(
  folder: string,
  special: (request: IncomingMessage, response: ServerResponse) => boolean = () => false,
): Promise<{ url: string; requests: string[]; close: () => void }> {
  const requests: string[] = [];
  const server: Server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    requests.push(pathname);
    if (special(request, response)) return;
    const file = join(folder, normalize(pathname.endsWith("/") ? `${pathname}index.html` : pathname));
    if (!existsSync(file) || statSync(file).isDirectory()) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream", "content-length": statSync(file).size });
    createReadStream(file).pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = () => {
    server.closeAllConnections();
    server.close();
  };
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, requests, close };
}
