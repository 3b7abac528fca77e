import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, inject } from "vitest";
import { browserArguments, findBrowser, noAdapterAdvice } from "../../scripts/adapter.mjs";

let shared: Promise<Browser> | undefined;

async function launch(): Promise<Browser> {
  const found = findBrowser();
  if (!found) throw new Error(noAdapterAdvice);
  const env = { ...process.env, ...found.env } as Record<string, string>;
  return chromium.launch({ executablePath: found.executable, args: browserArguments(), env });
}

/** Opens a page of the built demo with WebGPU; `problems` collects what the page reports as errors and warnings. */
export async function openPage(path = ""): Promise<{ page: Page; problems: string[] }> {
  shared ??= launch();
  const page = await (await shared).newPage();
  const problems: string[] = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") problems.push(message.text());
  });
  await page.goto(new URL(path, inject("demoUrl")).href);
  return { page, problems };
}

afterAll(async () => {
  await (await shared)?.close();
});
