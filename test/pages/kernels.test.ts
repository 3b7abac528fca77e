import { readFile } from "node:fs/promises";
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { isDrawn, loseGpu, picture, type VisitOptions, visit } from "../support/pages.ts";

async function onPage(options: VisitOptions & { query?: string }, act: (page: Page) => Promise<void>): Promise<void> {
  const { query = "", ...rest } = options;
  await visit(`kernels.html${query}`, rest, async ({ page }) => {
    await ready(page);
    await act(page);
  });
}

const runButton = (page: Page) => page.getByRole("button", { name: "Run" });
const ready = (page: Page) => runButton(page).and(page.locator(":enabled")).waitFor();
const status = (page: Page) => page.getByRole("status").textContent();

async function choose(page: Page, tokens: number): Promise<void> {
  await page.getByLabel("Width").selectOption("64");
  await page.getByLabel("Tokens", { exact: true }).fill(String(tokens));
}

/** The cells of a table's rows, without its head. */
function cells(page: Page, table: string): Promise<string[][]> {
  return page
    .locator(`${table} tbody tr`)
    .evaluateAll((rows) => rows.map((row) => [...(row as HTMLTableRowElement).cells].map((cell) => cell.textContent)));
}

const TIME = /^[\d.,]+ (µs|ms|s)$/;
const RATE = /^[\d.,]+ [kMGT]?FLOP\/s$/;

interface Report {
  readonly adapter: { readonly name: string; readonly timestamps: boolean };
  readonly options: Record<string, unknown>;
  readonly crossover: { readonly measured: number | null; readonly counted: number };
  readonly calls: readonly {
    readonly tokens: number;
    readonly moments: number;
    readonly attention: number;
    readonly momentsFlops: number;
    readonly attentionFlops: number;
  }[];
  readonly kernels: readonly {
    readonly layer: string;
    readonly kernel: string;
    readonly dispatches: number;
    readonly ms: number;
    readonly flops?: number;
  }[];
}

async function downloaded(page: Page): Promise<Report> {
  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: "Download JSON" }).click();
  const file = await download;
  expect(file.suggestedFilename()).toBe("kernels.json");
  return JSON.parse(await readFile(await file.path(), "utf8"));
}

describe("measuring", () => {
  it("times both layers and their kernels, and shows, copies and saves the same numbers", async () => {
    await onPage({ viewport: { width: 1280, height: 900 }, permissions: ["clipboard-read", "clipboard-write"] }, async (page) => {
      await choose(page, 500);
      await runButton(page).press("Enter");
      const bar = page.getByRole("progressbar", { name: "Measured" });
      await bar.waitFor();
      await ready(page);
      expect(await status(page)).toBe("Done.");

      const sweep = await cells(page, "#sweep-table");
      expect(sweep.map(([tokens]) => tokens)).toEqual(["128", "256", "500"]);
      for (const [, moments, reached, attention, also] of sweep) {
        expect(moments).toMatch(TIME);
        expect(attention).toMatch(TIME);
        expect(reached).toMatch(RATE);
        expect(also).toMatch(RATE);
      }
      expect(await page.locator("#finding").textContent()).toMatch(
        /^At 500 tokens .* times as fast as .*\. .*Counting operations, they should meet at 258\.$/,
      );
      for (const colour of ["--line-a", "--line-b"]) expect(await isDrawn(page, "#sweep-chart", colour)).toBe(true);

      const kernels = await cells(page, "#kernel-table");
      const names = kernels.map(([name]) => name);
      expect(names).toEqual(
        expect.arrayContaining(["Moment layer", "moments", "merge_moments", "Softmax attention", expect.stringMatching(/^attention/)]),
      );
      const shares = kernels.map((row) => Number(/^(\d+) %$/.exec(row[3] ?? "")?.[1] ?? 0));
      // Of each layer's kernels together, to rounding.
      expect(shares.reduce((a, b) => a + b, 0)).toBeGreaterThan(190);
      expect(shares.reduce((a, b) => a + b, 0)).toBeLessThan(210);

      const report = await downloaded(page);
      expect(report.options).toEqual({ dim: 64, order: 2, orderExpand: 2, tokens: 500, causal: false });
      expect(report.calls.map(({ tokens }) => tokens)).toEqual([128, 256, 500]);
      const whole = report.calls.at(-1)!;
      const mine = report.kernels.filter(({ layer }) => layer === "moments");
      // Kernels apart take about as long as a call, on whatever is busy beside.
      const apart = mine.reduce((sum, { ms }) => sum + ms, 0);
      expect(apart).toBeGreaterThan(whole.moments / 10);
      expect(apart).toBeLessThan(whole.moments * 10);
      const flopsOf = (name: string) => report.kernels.reduce((sum, { layer, flops = 0 }) => sum + (layer === name ? flops : 0), 0);
      expect(flopsOf("moments")).toBe(whole.momentsFlops);
      expect(flopsOf("attention")).toBe(whole.attentionFlops);

      await page.getByRole("button", { name: "Copy the tables" }).click();
      await page.getByText("The tables are in the clipboard.").waitFor();
      const copied = await page.evaluate(() => navigator.clipboard.readText());
      expect(copied.split("\n")[0]).toBe("Tokens\tMoment layer\treaches\tAttention\treaches");
      expect(copied).toContain(sweep[2]!.join("\t"));
      expect(copied).toContain(kernels.find(([name]) => name?.startsWith("attention"))!.join("\t"));
      await picture(page, "kernels-measured");
    });
  });

  it("causal, of another order", async () => {
    await onPage({ viewport: { width: 390, height: 844 } }, async (page) => {
      await choose(page, 128);
      await page.getByLabel("Order").selectOption("3");
      await page.getByRole("checkbox", { name: /Causal/ }).check();
      await runButton(page).click();
      await ready(page);
      const names = (await cells(page, "#kernel-table")).map(([name]) => name);
      expect(names).toEqual(expect.arrayContaining(["prefix_moments", "scan_moments", expect.stringMatching(/^attention/)]));
      expect((await downloaded(page)).options).toMatchObject({ order: 3, causal: true });
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(390);
    });
  });

  it("measures whole layers where the adapter has no timestamps, and says so", async () => {
    const without = `{
      const { requestDevice } = GPUAdapter.prototype;
      const features = Object.getOwnPropertyDescriptor(GPUAdapter.prototype, "features").get;
      Object.defineProperty(GPUAdapter.prototype, "features", {
        get() { return new Set([...features.call(this)].filter((feature) => feature !== "timestamp-query")); },
      });
    }`;
    await onPage({ beforeInWorker: without }, async (page) => {
      expect(await page.locator("#clock").textContent()).toContain("no timestamps");
      await choose(page, 200);
      await runButton(page).click();
      await ready(page);
      const sweep = await cells(page, "#sweep-table");
      expect(sweep.map(([tokens]) => tokens)).toEqual(["128", "200"]);
      expect(sweep[1]![1]).toMatch(TIME);
      expect(await cells(page, "#kernel-table")).toEqual([["This adapter has no timestamps."]]);
      expect((await downloaded(page)).kernels).toEqual([]);
    });
  });
});

it("Escape stops it, and what was measured stays", async () => {
  await onPage({}, async (page) => {
    await choose(page, 8192);
    await runButton(page).click();
    await page.locator("#sweep-table").getByText("128").waitFor();
    expect(await page.evaluate(() => document.activeElement?.textContent)).toBe("Stop");
    await page.keyboard.press("Escape");
    await page.getByText("Stopped.").waitFor();
    const measured = await cells(page, "#sweep-table");
    expect(measured.length).toBeLessThan(6);
    await runButton(page).and(page.locator(":enabled")).waitFor();
  });
});

it("can run again after the GPU was lost", async () => {
  await onPage({ query: "?debug" }, async (page) => {
    await choose(page, 8192);
    await runButton(page).click();
    await page.locator("#sweep-table").getByText("128").waitFor();
    await loseGpu(page);
    await page.getByRole("alert").filter({ hasText: "The measurement was interrupted; Run starts it again." }).waitFor();
    await choose(page, 128);
    await runButton(page).click();
    await ready(page);
    expect(await status(page)).toBe("Done.");
    expect((await cells(page, "#sweep-table")).map(([tokens]) => tokens)).toEqual(["128"]);
  });
});

it("refuses numbers of tokens out of range", async () => {
  await onPage({}, async (page) => {
    for (const tokens of ["", "10", "65537", "200.5"]) {
      await page.getByLabel("Tokens", { exact: true }).fill(tokens);
      await runButton(page).click();
      expect(await page.locator("#form:invalid").count(), tokens).toBe(1);
      expect(await status(page)).toBe("Ready.");
    }
  });
});
