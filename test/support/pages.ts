import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { afterAll, expect, inject } from "vitest";
import { browserArguments, findBrowser, noAdapterAdvice } from "../../scripts/adapter.mjs";

const root = join(import.meta.dirname, "../..");
const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

interface Launched {
  readonly browser: Browser;
  readonly tasks: TaskRecorder;
}

/** By the arguments that they were started with. */
const launched = new Map<string, Promise<Launched>>();

function browserWith(more: readonly string[]): Promise<Launched> {
  const key = more.join(" ");
  const found = launched.get(key) ?? launch(more);
  launched.set(key, found);
  return found;
}

async function launch(more: readonly string[]): Promise<Launched> {
  const found = findBrowser();
  if (!found) throw new Error(noAdapterAdvice);
  const env = { ...process.env, ...found.env } as Record<string, string>;
  const browser = await chromium.launch({ executablePath: found.executable, args: [...browserArguments(), ...more], env });
  const tasks = new TaskRecorder(browser);
  await tasks.start();
  return { browser, tasks };
}

afterAll(async () => {
  for (const each of launched.values()) await (await each).browser.close();
});

/** No task of a page's main thread may compute longer: the browser could not draw or hear the visitor meanwhile. */
const LONGEST_TASK_MS = 50;
/** For whatever a page has to become: long, as other work on the machine may hold it up; a test's own limit ends what never comes. */
const PATIENCE_MS = 100_000;

export interface Visit {
  readonly page: Page;
  /** Errors and warnings of the page, its workers and its GPU so far. */
  readonly problems: string[];
}

export interface VisitOptions extends BrowserContextOptions {
  /** Runs in the page before anything else. */
  readonly before?: () => void;
  /** Goes into the page's worker before anything else. */
  readonly beforeInWorker?: string;
  /** Problems that belong to what is tried. */
  readonly expected?: RegExp;
  /** For a browser of its own, started with these arguments. */
  readonly browserArgs?: readonly string[];
}

/**
 * Opens a page of the built demo as a visitor does, and lets `act` use it. Afterwards nothing may have gone wrong: no error or warning of the page, its
 * workers or its GPU, no request to another server, no task of the main thread over 50 ms, nothing that axe finds in the page's last state.
 * @param path with its query, relative to the site: `"generate.html?debug"`
 */
export async function visit(path: string, options: VisitOptions, act: (visit: Visit) => Promise<void>): Promise<void> {
  const { before, beforeInWorker, expected, browserArgs = [], ...contextOptions } = options;
  const { browser, tasks } = await browserWith(browserArgs);
  const context = await browser.newContext({ reducedMotion: "reduce", ...contextOptions });
  try {
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    const problems: string[] = [];
    let report = (): void => {};
    const reported = new Promise<void>((resolve) => {
      report = resolve;
    });
    const note = (text: string) => {
      if (expected?.test(text)) return;
      problems.push(text);
      report();
    };
    page.on("pageerror", (error) => note(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") note(message.text());
    });
    const foreign: string[] = [];
    const { origin } = new URL(inject("demoUrl"));
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (url.protocol !== "data:" && url.protocol !== "blob:" && url.origin !== origin) foreign.push(request.url());
    });
    if (before) await page.addInitScript(before);
    if (beforeInWorker !== undefined) {
      await page.route(/worker-[^/]*\.js$/, async (route) => {
        const response = await route.fetch();
        await route.fulfill({ response, body: `${beforeInWorker};\n${await response.text()}` });
      });
    }
    const long: number[] = [];
    await page.exposeFunction("noteLongTask", (duration: number) => long.push(duration));
    await page.addInitScript(watchLongTasks);
    await page.goto(new URL(path, inject("demoUrl")).href);
    try {
      // A page that reports something has failed: no need to wait for what may never come.
      await Promise.race([act({ page, problems }), reported]);
    } catch (error) {
      if (problems.length > 0) throw new Error(`the page reported ${problems.join("; ")}`, { cause: error });
      throw error;
    }
    await page.evaluate(() => performance.mark("end of visit"));
    expect(problems, "what the page reported").toEqual([]);
    expect(foreign, "requests to other servers").toEqual([]);
    // What took long by the clock may have waited for a busy machine; the browser's record tells.
    if (long.some((duration) => duration > LONGEST_TASK_MS)) expect(await tasks.long(), `tasks of over ${LONGEST_TASK_MS} ms`).toEqual([]);
    expect(await accessibilityProblems(page), "what axe finds").toEqual([]);
  } finally {
    await context.close();
  }
}

function watchLongTasks(): void {
  performance.mark("start of visit");
  const { noteLongTask } = window as unknown as { noteLongTask(duration: number): void };
  const observer = new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) noteLongTask(duration);
  });
  observer.observe({ type: "longtask", buffered: true });
}

interface TraceEvent {
  readonly name: string;
  readonly cat: string;
  readonly pid: number;
  readonly tid: number;
  readonly ts: number;
  readonly dur?: number;
  /** Processor time, in microseconds. */
  readonly tdur?: number;
  readonly args?: unknown;
}

/** The browser's own record of the tasks of its threads, with the processor time that each took. It runs all the time, since ending it can take seconds. */
class TaskRecorder {
  readonly #browser: Browser;
  #end: (() => Promise<TraceEvent[]>) | undefined;

  constructor(browser: Browser) {
    this.#browser = browser;
  }

  async start(): Promise<void> {
    const session = await this.#browser.newBrowserCDPSession();
    const events: TraceEvent[] = [];
    const complete = new Promise<void>((resolve) => session.once("Tracing.tracingComplete", () => resolve()));
    session.on("Tracing.dataCollected", ({ value }) => events.push(...(value as unknown as TraceEvent[])));
    const includedCategories = ["disabled-by-default-devtools.timeline", "devtools.timeline", "blink.user_timing"];
    await session.send("Tracing.start", { traceConfig: { includedCategories, excludedCategories: ["*"] } });
    this.#end = async () => {
      await session.send("Tracing.end");
      await complete;
      await session.detach();
      return events;
    };
  }

  /** Tasks of the last visit's main thread that computed for too long, each with the longest things in it. */
  async long(): Promise<string[]> {
    const events = (await this.#end?.()) ?? [];
    await this.start();
    const marks = events.filter(({ cat }) => cat.includes("user_timing"));
    const last = marks.filter(({ name }) => name === "end of visit").sort((a, b) => b.ts - a.ts)[0];
    if (!last) throw new Error("the browser recorded no visit");
    const onMain = events.filter(({ pid, tid, ts, tdur }) => pid === last.pid && tid === last.tid && ts < last.ts && tdur !== undefined);
    const since = Math.min(
      ...marks.filter(({ name, pid, tid }) => name === "start of visit" && pid === last.pid && tid === last.tid).map(({ ts }) => ts),
    );
    const tasks = onMain.filter(({ name, ts, dur = 0 }) => name === "RunTask" && ts + dur >= since);
    if (tasks.length === 0) throw new Error("the browser recorded no task of the page");
    const long = tasks.filter(({ tdur = 0 }) => tdur > LONGEST_TASK_MS * 1000);
    return long.map((task) => {
      const inside = onMain.filter((event) => event !== task && event.ts >= task.ts && event.ts < task.ts + (task.dur ?? 0));
      const longest = inside.sort((a, b) => (b.tdur ?? 0) - (a.tdur ?? 0)).slice(0, 4);
      return [task, ...longest]
        .map(({ name, tdur = 0, args }) => `${name} ${(tdur / 1000).toFixed(1)} ms ${JSON.stringify(args)}`.slice(0, 300))
        .join("; ");
    });
  }
}

/** What axe finds wrong with the page for people who see, hear or move differently: one line for every element. */
async function accessibilityProblems(page: Page): Promise<string[]> {
  await page.evaluate(axeSource);
  return page.evaluate(async () => {
    const { axe } = window as unknown as {
      axe: { run(): Promise<{ violations: { id: string; help: string; nodes: { target: unknown[]; failureSummary?: string }[] }[] }> };
    };
    const { violations } = await axe.run();
    return violations.flatMap(({ id, help, nodes }) => nodes.map(({ target, failureSummary }) => `${id}: ${help}: ${target} ${failureSummary}`));
  });
}

/** The page as a picture in test-results/, to be looked at. */
export async function picture(page: Page, name: string): Promise<void> {
  const folder = join(root, "test-results");
  mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}

export interface Drawn {
  readonly pixels: number;
  /** Their middle, in fractions of the canvas from its upper left corner. */
  readonly x: number;
  readonly y: number;
}

/** What a canvas shows in this colour of the page: `"--line-a"`. */
export async function drawnIn(page: Page, container: string, colour: string): Promise<Drawn> {
  return page.locator(`${container} canvas`).evaluate((canvas: HTMLCanvasElement, name) => {
    const pixels = (width: number, height: number, draw: (context: CanvasRenderingContext2D) => void) => {
      const copy = Object.assign(document.createElement("canvas"), { width, height });
      const context = copy.getContext("2d", { willReadFrequently: true })!;
      draw(context);
      return context.getImageData(0, 0, width, height).data;
    };
    const wanted = pixels(1, 1, (context) => {
      context.fillStyle = getComputedStyle(canvas).getPropertyValue(name);
      context.fillRect(0, 0, 1, 1);
    });
    const { width, height } = canvas;
    const drawn = pixels(width, height, (context) => context.drawImage(canvas, 0, 0));
    const sum = { pixels: 0, x: 0, y: 0 };
    for (let i = 0; i < drawn.length; i += 4) {
      if (!wanted.every((value, channel) => drawn[i + channel] === value)) continue;
      sum.pixels++;
      sum.x += ((i / 4) % width) / width;
      sum.y += Math.floor(i / 4 / width) / height;
    }
    return { pixels: sum.pixels, x: sum.x / sum.pixels, y: sum.y / sum.pixels };
  }, colour);
}

export async function isDrawn(page: Page, container: string, colour: string): Promise<boolean> {
  return (await drawnIn(page, container, colour)).pixels > 0;
}

/** Takes the GPU away from a page that was opened with `?debug`, as a driver that crashes does. */
export async function loseGpu(page: Page): Promise<void> {
  await page.getByRole("button", { name: "Lose the GPU" }).click();
}

/** For `beforeInWorker` and `before`: a browser without WebGPU, and one that finds no adapter. */
export const NO_WEBGPU = 'Object.defineProperty(globalThis.WorkerNavigator?.prototype ?? Navigator.prototype, "gpu", { get: () => undefined })';
export const NO_ADAPTER = "GPU.prototype.requestAdapter = async () => null";
