import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { attentionMemory, crossover } from "../../demo/shared/costs.ts";
import { isDrawn, loseGpu, picture, type VisitOptions, visit } from "../support/pages.ts";

async function onPage(options: VisitOptions & { query?: string }, act: (page: Page) => Promise<void>): Promise<void> {
  const { query = "", ...rest } = options;
  await visit(`long.html${query}`, rest, async ({ page }) => {
    await startButton(page).and(page.locator(":enabled")).waitFor();
    await act(page);
  });
}

const startButton = (page: Page) => page.getByRole("button", { name: "Start" });
const status = (page: Page) => page.getByRole("status").textContent();
const meter = async (page: Page, name: string) => (await page.locator(`dt:text-is("${name}") + dd`).textContent()) ?? "";
const seen = async (page: Page) => Number((await meter(page, "Tokens seen")).replaceAll(",", ""));

async function start(page: Page, tokens: number): Promise<void> {
  await page.getByLabel("Width").selectOption("64");
  await page.getByLabel("Tokens", { exact: true }).fill(String(tokens));
  await startButton(page).click();
}

describe("streaming", () => {
  it("takes in as many tokens as asked, in a memory that stays as it was", async () => {
    await onPage({ viewport: { width: 1280, height: 900 } }, async (page) => {
      await start(page, 60_000);
      await expect.poll(() => seen(page)).toBeGreaterThan(0);
      const early = await meter(page, "Memory of them");
      const bar = page.getByRole("progressbar", { name: "Tokens streamed" });
      expect(Number(await bar.getAttribute("value"))).toBeGreaterThan(0);
      await page.getByText("Done after 60,000 tokens.").waitFor();
      expect(await seen(page)).toBe(60_000);
      expect(await meter(page, "Memory of them")).toBe(early);
      expect(early).toMatch(/^[\d,]+ bytes$/);
      expect(await meter(page, "Attention would keep")).toBe("30.7 MB");
      expect(attentionMemory(64, 60_000)).toBe(60_000 * 2 * 64 * 4);
      expect(await meter(page, "A token takes")).toMatch(/^[\d.]+ (µs|ms)$/);
      for (const chart of ["#pace-chart", "#memory-chart"]) {
        expect(await isDrawn(page, chart, "--line-a")).toBe(true);
        expect(await isDrawn(page, chart, "--line-b")).toBe(true);
        expect(await page.locator(`${chart} [role=img]`).getAttribute("aria-label")).toContain("After 60,000 tokens");
      }
      await page.getByText("The numbers").press("Enter");
      const rows = page.getByRole("row");
      expect(await rows.count()).toBeGreaterThan(2);
      expect(await rows.last().textContent()).toMatch(/^60,000/);
      await picture(page, "long-streamed");
    });
  });

  it("Escape stops it, and it can start again", async () => {
    await onPage({}, async (page) => {
      await start(page, 1_000_000);
      await expect.poll(() => seen(page)).toBeGreaterThan(0);
      expect(await startButton(page).isDisabled()).toBe(true);
      expect(await page.evaluate(() => document.activeElement?.textContent)).toBe("Stop");
      await page.keyboard.press("Escape");
      await startButton(page).and(page.locator(":enabled")).waitFor();
      const stopped = await seen(page);
      expect(await status(page)).toBe(`Stopped after ${stopped.toLocaleString("en-US")} tokens.`);
      expect(stopped).toBeLessThan(1_000_000);
      await page.waitForTimeout(300);
      expect(await seen(page)).toBe(stopped);
      await start(page, 1500);
      await page.getByText("Done after 1,500 tokens.").waitFor();
    });
  });

  it("goes on from the saved memory when the GPU is lost", async () => {
    const noteSaves = () => {
      const noted = Object.assign(window, { saves: 0 });
      globalThis.Worker = class extends Worker {
        constructor(...args: ConstructorParameters<typeof Worker>) {
          super(...args);
          this.addEventListener("message", ({ data }) => {
            if (data.kind === "event" && data.name === "saved") noted.saves++;
          });
        }
      };
    };
    await onPage({ query: "?debug", before: noteSaves }, async (page) => {
      await start(page, 400_000);
      await expect.poll(() => page.evaluate(() => (window as unknown as { saves: number }).saves)).toBeGreaterThan(1);
      const before = await seen(page);
      expect(before).toBeLessThan(400_000);
      await loseGpu(page);
      await page.getByRole("alert").filter({ hasText: "The stream goes on from the memory that was saved last." }).waitFor();
      await page.getByText("Streaming …").waitFor();
      const after = await seen(page);
      expect(after).toBeGreaterThan(0.1 * before);
      await page.getByRole("button", { name: "Stop" }).click();
      await page.getByText(/^Stopped after/).waitFor();
    });
  });
});

it("says from where on attention is dearer, for what is chosen", async () => {
  await onPage({}, async (page) => {
    const shown = () => meter(page, "One more token costs attention more from");
    const counted = (dim: number, order: number, orderExpand: number) =>
      `${Math.ceil(crossover({ dim, order, orderExpand })).toLocaleString("en-US")} tokens, counted`;
    expect(await shown()).toBe(counted(128, 2, 2));
    await page.getByLabel("Width").selectOption("512");
    await page.getByLabel("Order").selectOption("3");
    await page.getByLabel("Expansion").selectOption("4");
    expect(await shown()).toBe(counted(512, 3, 4));
    // N = D·(1.5·k·e − 2) for a sequence's mean, twice that where one looks back at all of it.
    expect(crossover({ dim: 512, order: 3, orderExpand: 4 })).toBeCloseTo(512 * (1.5 * 12 - 2), -2);
  });
});

it("refuses numbers of tokens out of range", async () => {
  await onPage({}, async (page) => {
    for (const tokens of ["", "10", "1000001", "1.5"]) {
      await page.getByLabel("Tokens", { exact: true }).fill(tokens);
      await startButton(page).click();
      expect(await page.locator("#form:invalid").count(), tokens).toBe(1);
      expect(await status(page)).toBe("Ready.");
    }
  });
});
