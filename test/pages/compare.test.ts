import { readFile } from "node:fs/promises";
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { isDrawn, loseGpu, picture, type VisitOptions, visit } from "../support/pages.ts";

async function onPage(options: VisitOptions & { query?: string }, act: (page: Page) => Promise<void>): Promise<void> {
  const { query = "", ...rest } = options;
  await visit(`compare.html${query}`, rest, async ({ page }) => {
    await ready(page);
    await act(page);
  });
}

const runButton = (page: Page) => page.getByRole("button", { name: "Run" });
const ready = (page: Page) => runButton(page).and(page.locator(":enabled")).waitFor();
const status = (page: Page) => page.getByRole("status").textContent();

async function choose(page: Page, tokens: number): Promise<void> {
  await page.getByLabel("Width", { exact: true }).selectOption("64");
  await page.getByLabel("Tokens", { exact: true }).fill(String(tokens));
}

/** The cells of a table's body. */
function cells(page: Page, table: string): Promise<string[][]> {
  return page
    .locator(`${table} tbody tr`)
    .evaluateAll((rows) => rows.map((row) => [...(row as HTMLTableRowElement).cells].map((cell) => cell.textContent)));
}

interface Report {
  readonly options: Record<string, unknown>;
  readonly fasterThanAttention: Record<string, number>;
  readonly calls: readonly {
    readonly tokens: number;
    readonly method: string;
    readonly ms: number;
    readonly bytes: number;
    readonly flops: number;
    readonly layer: { readonly orderExpand?: number; readonly expand?: number; readonly features?: number };
  }[];
}

async function downloaded(page: Page): Promise<Report> {
  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: "Download JSON" }).click();
  const file = await download;
  expect(file.suggestedFilename()).toBe("compare.json");
  return JSON.parse(await readFile(await file.path(), "utf8"));
}

const METHODS = ["hom", "pom", "attention", "favor", "rfa", "maclaurin_exp"];

describe("comparing", () => {
  it("times every method at equal width, and shows and saves the same numbers", async () => {
    await onPage({ viewport: { width: 1280, height: 900 } }, async (page) => {
      await choose(page, 500);
      await runButton(page).press("Enter");
      await page.getByRole("progressbar", { name: "Measured" }).waitFor();
      await ready(page);
      expect(await status(page)).toBe("Done.");

      const [times, memory, work] = [await cells(page, "#times"), await cells(page, "#memory"), await cells(page, "#work")];
      for (const table of [times, memory, work]) expect(table.map(([tokens]) => tokens)).toEqual(["128", "256", "500"]);
      for (const row of times) for (const cell of row.slice(1)) expect(cell).toMatch(/^[\d.,]+\s(µs|ms|s)$/);
      for (const row of memory) for (const cell of row.slice(1)) expect(cell).toMatch(/^[\d.,]+\s(bytes|kB|MB)$/);
      expect(work[0]![1]).toMatch(/^[\d.,]+\sMFLOP, e\s2$/);
      for (const row of work) expect(row[2]).toMatch(/^[\d.,]+\sMFLOP, e\s4$/);
      expect(work.map((row) => row[4])).toEqual(Array(3).fill(expect.stringMatching(/, R\s128$/)));
      // Seven columns need no scrolling here.
      for (const name of ["Times", "Memory", "Work"])
        expect(await page.getByRole("region", { name, exact: true }).evaluate((e) => e.scrollWidth - e.clientWidth), name).toBe(0);
      expect(await page.locator("#finding").textContent()).toMatch(/^At 500 tokens the fastest is .*\.$/);
      for (const line of ["a", "b", "c", "d", "e", "f"]) {
        for (const chart of ["#time-chart", "#memory-chart"])
          expect(await isDrawn(page, chart, `--line-${line}`), `${chart}, line ${line}`).toBe(true);
      }

      const report = await downloaded(page);
      expect(report.options).toEqual({ dim: 64, tokens: 500, causal: false, at: "width" });
      expect(report.calls.map(({ tokens, method }) => `${tokens} ${method}`)).toEqual(
        [128, 256, 500].flatMap((n) => METHODS.map((name) => `${n} ${name}`)),
      );
      const of = (method: string) => report.calls.filter((call) => call.method === method);
      // Twice the tokens are twice the work of a linear layer, and more of attention.
      for (const method of ["hom", "pom", "favor", "rfa"]) expect(of(method)[1]!.flops / of(method)[0]!.flops).toBeCloseTo(2, 10);
      expect(of("attention")[1]!.flops / of("attention")[0]!.flops).toBeGreaterThan(2.1);
      // As many moments in both: weights of the same sizes, and work that differs by what is done a moment.
      expect(of("pom")[0]!.flops / of("hom")[0]!.flops).toBeCloseTo(1, 1);
      // No matrix of tokens by tokens: of 500 x 500 numbers and more.
      for (const { bytes, method } of report.calls) expect(bytes, method).toBeLessThan(5e6);
      await picture(page, "compare-width");
    });
  });

  it("gives each as much work as attention has, causal", async () => {
    await onPage({ viewport: { width: 390, height: 844 } }, async (page) => {
      await choose(page, 256);
      await page.getByRole("radio", { name: /equal work/ }).check();
      await page.getByRole("checkbox", { name: /Causal/ }).check();
      await runButton(page).click();
      await ready(page);
      const { calls, options } = await downloaded(page);
      expect(options).toMatchObject({ at: "flops", causal: true });
      const last = calls.filter(({ tokens }) => tokens === 256);
      const attention = last.find(({ method }) => method === "attention")!;
      for (const { method, flops } of last) {
        // A step of expansion is 12·D² operations a token, of the mixer's half of it, of features 32·D.
        const [low, high] = method === "hom" || method === "pom" ? [0.6, 1.6] : [0.9, 1.1];
        expect(flops / attention.flops, method).toBeGreaterThan(low);
        expect(flops / attention.flops, method).toBeLessThan(high);
      }
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(390);
      await picture(page, "compare-flops-phone");
    });
  });

  it("Escape stops it, and it can be run again", async () => {
    await onPage({}, async (page) => {
      await choose(page, 65_536);
      await runButton(page).click();
      await page.getByRole("progressbar", { name: "Measured" }).waitFor();
      await page.keyboard.press("Escape");
      await ready(page);
      expect(await status(page)).toBe("Stopped.");
      await choose(page, 128);
      await runButton(page).click();
      await ready(page);
      expect(await cells(page, "#times")).toHaveLength(1);
      expect(await page.getByRole("button", { name: "Stop" }).isDisabled()).toBe(true);
    });
  });

  it("outlives the loss of its GPU", async () => {
    await onPage({ query: "?debug" }, async (page) => {
      await choose(page, 128);
      await loseGpu(page);
      await page.getByText("The GPU is back").waitFor();
      await ready(page);
      await runButton(page).click();
      await page.getByText("Done.").waitFor();
      expect(await cells(page, "#times")).toHaveLength(1);
    });
  });
});
