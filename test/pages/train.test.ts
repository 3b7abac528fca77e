import { mkdtempSync, rmSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, describe, expect, it } from "vitest";
import { LossCurve } from "../../demo/train/curve.ts";
import { sentences, sums } from "../../demo/train/examples.ts";
import { parseSafetensors } from "../../src/index.ts";
import { hlmConfigOf, vocabularyOf } from "../../src/models/index.ts";
import { isDrawn, loseGpu, picture, type VisitOptions, visit } from "../support/pages.ts";

async function onPage(options: VisitOptions & { query?: string }, act: (page: Page) => Promise<void>): Promise<void> {
  const { query = "", ...rest } = options;
  await visit(`train.html${query}`, rest, async ({ page }) => {
    await button(page, "Train").and(page.locator(":enabled")).waitFor();
    await act(page);
  });
}

const button = (page: Page, name: string) => page.getByRole("button", { name, exact: true });
const status = (page: Page) => page.getByRole("status").textContent();
const meter = async (page: Page, name: string) => (await page.locator(`dt:text-is("${name}") + dd`).textContent()) ?? "";
const step = async (page: Page) => Number((await meter(page, "Step")).replaceAll(",", ""));
const samples = (page: Page) => page.locator("#samples li");

const folder = mkdtempSync(join(tmpdir(), "homm-webgpu-train-page-"));
const temporary = (name: string) => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const TINY = { Layers: "1", Context: "16", Rows: "4", Steps: "60", "Learning rate": "0.02" };

async function fill(page: Page, fields: Readonly<Record<string, string>>): Promise<void> {
  for (const [label, value] of Object.entries(fields)) await page.getByLabel(label, { exact: true }).fill(value);
}

async function trainTiny(page: Page, fields: Readonly<Record<string, string>> = {}): Promise<void> {
  await page.getByLabel("Width").selectOption("32");
  await fill(page, { ...TINY, ...fields });
  await button(page, "Train").click();
}

const ended = (page: Page) => expect.poll(() => status(page)).toMatch(/^(Done|Paused|Stopped) after/);

async function fileOf(page: Page, press: string): Promise<Buffer> {
  const [file] = await Promise.all([page.waitForEvent("download"), button(page, press).click()]);
  return readFile(await file.path());
}

describe("training", () => {
  it("learns from an example: the loss falls, samples and the curve appear, and the weights can be taken along", async () => {
    await onPage({ viewport: { width: 1280, height: 900 } }, async (page) => {
      await button(page, "Sentences").click();
      expect(await page.locator("#text-facts").textContent()).toMatch(/^Sentences: 1\d\d,\d{3} characters, shown in part\.$/);
      await trainTiny(page);
      // A first sample comes while it learns.
      await samples(page).first().waitFor();
      await ended(page);
      expect(await status(page)).toBe("Done after 60 steps.");
      expect(await step(page)).toBe(60);
      const [train, validation] = [Number(await meter(page, "Training loss")), Number(await meter(page, "Validation loss"))];
      // The vocabulary has some 27 characters: a loss of 3.3 knows nothing.
      expect(train).toBeLessThan(2.6);
      expect(validation).toBeLessThan(2.6);
      expect(await meter(page, "Speed")).toMatch(/^[\d.,]+ k?tokens\/s$/);
      expect(await meter(page, "Model")).toMatch(/^[\d,]+ parameters: 1 layer of width 32, 27 different tokens; 4 rows of 16 tokens a step$/);
      for (const line of ["--line-a", "--line-b"]) expect(await isDrawn(page, "#loss-chart", line)).toBe(true);
      expect(await page.locator("#loss-chart [role=img]").getAttribute("aria-label")).toMatch(
        /^Loss after step 60: \d\.\d{3} in training, \d\.\d{3}/,
      );
      expect(await samples(page).first().textContent()).toMatch(/^after step 60./);
      await page.getByText("The numbers").press("Enter");
      const rows = page.getByRole("row");
      expect(await rows.last().textContent()).toMatch(/^60\d\.\d{3}\d\.\d{3}$/);
      await picture(page, "train-done");

      const weights = parseSafetensors(await fileOf(page, "Download the weights"));
      expect(hlmConfigOf(weights)).toMatchObject({ dim: 32, layers: 1, contextLength: 16, vocabSize: vocabularyOf(weights).size });
      expect(vocabularyOf(weights).knows("The old cat sees the dog.\n")).toBe(true);
      expect(weights.names).toContain("layers.0.hom.ho_proj.weight");
    });
  });

  it("pauses, goes on, saves the run, and loads it again", async () => {
    await onPage({}, async (page) => {
      const text = "Some text of my own, over and over. ".repeat(40);
      await fill(page, { Text: text });
      expect(await page.locator("#text-facts").textContent()).toBe("1,440 characters.");
      await trainTiny(page, { Steps: "100000" });
      await expect.poll(() => step(page)).toBeGreaterThan(2);
      expect(await button(page, "Train").isDisabled()).toBe(true);
      expect(await page.getByLabel("Learning rate").isDisabled()).toBe(true);
      // The page hears and draws all the while.
      await page.evaluate(async () => {
        for (let frame = 0; frame < 20; frame++) await new Promise(requestAnimationFrame);
      });
      await page.keyboard.press("Escape");
      await ended(page);
      const at = await step(page);
      expect(await status(page)).toBe(`Paused after ${at} steps.`);
      await page.waitForTimeout(300);
      expect(await step(page)).toBe(at);

      const saved = await fileOf(page, "Save the run");
      expect(JSON.parse(parseSafetensors(saved).metadata["trainer"]!).steps).toBe(at);
      await fill(page, { Steps: String(at + 5) });
      await button(page, "Go on").click();
      await expect.poll(() => status(page)).toBe(`Done after ${at + 5} steps.`);
      const loss = await meter(page, "Training loss");
      const once = await fileOf(page, "Download the weights");
      await button(page, "Go on").click();
      expect(await status(page)).toBe(`All ${at + 5} steps are done: raise the number of steps to go on.`);

      // The same again from the file, in a page that knows of nothing.
      await page.reload();
      await button(page, "Train").and(page.locator(":enabled")).waitFor();
      const path = temporary("training.safetensors");
      await writeFile(path, saved);
      await page.getByLabel("Saved run").setInputFiles(path);
      await expect.poll(() => status(page)).toBe(`Paused after ${at} steps.`);
      expect(await page.getByLabel("Text", { exact: true }).inputValue()).toBe(text);
      expect(await page.getByLabel("Steps", { exact: true }).inputValue()).toBe("100000");
      await fill(page, { Steps: String(at + 5) });
      await button(page, "Go on").click();
      await expect.poll(() => status(page)).toBe(`Done after ${at + 5} steps.`);
      expect(await meter(page, "Training loss")).toBe(loss);
      expect((await fileOf(page, "Download the weights")).equals(once)).toBe(true);
    });
  });

  it("takes a file that is dropped, as bytes if need be, and shows its beginning", async () => {
    await onPage({ viewport: { width: 390, height: 844 } }, async (page) => {
      const text = "Zoë says: ½ + ½ = 1. ".repeat(2000);
      const path = temporary("own.txt");
      await writeFile(path, text);
      await page.getByLabel("Text file").setInputFiles(path);
      await expect.poll(() => page.locator("#text-facts").textContent()).toMatch(/^own\.txt: 4\d,\d{3} bytes, shown in part\.$/);
      const shown = await page.getByLabel("Text", { exact: true }).inputValue();
      expect(text.startsWith(shown.slice(0, 3000))).toBe(true);
      await page.getByLabel("Tokens", { exact: true }).selectOption("bytes");
      await trainTiny(page, { Steps: "3" });
      await expect.poll(() => status(page)).toBe("Done after 3 steps.");
      expect(await meter(page, "Model")).toContain("256 different tokens");
      await picture(page, "train-phone");
      await button(page, "Clear").click();
      expect(await page.getByLabel("Text", { exact: true }).inputValue()).toBe("");
      expect(await page.evaluate(() => document.activeElement?.id)).toBe("text");
    });
  });

  it("says what to do when the loss explodes, and goes on from the weights before", async () => {
    await onPage({}, async (page) => {
      await button(page, "Sums").click();
      await trainTiny(page, { "Learning rate": "1000", Steps: "400" });
      await page.getByText("The loss exploded in step").waitFor();
      expect(await status(page)).toMatch(/^Stopped after [\d,]+ steps?\.$/);
      const at = await step(page);
      await fill(page, { "Learning rate": "0.000001", Steps: String(at + 2) });
      await button(page, "Go on").click();
      // As far as weights of that size can go.
      await expect.poll(() => status(page)).toMatch(/^Training|^(Done|Stopped) after/);
      await ended(page);
      expect(await step(page)).toBeGreaterThanOrEqual(at);
    });
  });

  it("goes on after the GPU was lost", async () => {
    await onPage({ query: "?debug", expected: /GPU|device|Device/ }, async (page) => {
      await button(page, "Sums").click();
      await trainTiny(page, { Steps: "5" });
      await ended(page);
      await fill(page, { Steps: "8" });
      await expect.poll(() => button(page, "Go on").isEnabled()).toBe(true);
      // The page's own save, which follows the last step, was asked for before this one.
      await fileOf(page, "Save the run");
      await loseGpu(page);
      await page.getByText("The run goes on from step 5, which was saved last.").waitFor();
      await button(page, "Go on").click();
      await expect.poll(() => status(page)).toBe("Done after 8 steps.");
    });
  });

  it("refuses what cannot be learnt", async () => {
    await onPage({}, async (page) => {
      const problem = page.locator("#text-problem");
      for (const [text, message] of [
        ["", "The text has 0 tokens. With a context of 16 it needs 20 or more."],
        ["short", "The text has 5 tokens."],
        ["a".repeat(100), "one character only"],
      ] as const) {
        await fill(page, { Text: text });
        await trainTiny(page);
        await expect.poll(() => problem.textContent()).toContain(message);
        expect(await status(page)).toBe("Ready.");
      }
      for (const fields of [{ Layers: "0" }, { Context: "2000" }, { "Learning rate": "2000" }, { Steps: "" }]) {
        await page.evaluate(() => document.querySelector("form")!.reset());
        await fill(page, { Text: "abc ".repeat(50), ...fields });
        await button(page, "Train").click();
        expect(await page.locator("#form:invalid").count(), JSON.stringify(fields)).toBe(1);
        expect(await status(page)).toBe("Ready.");
      }
      const path = temporary("wrong.safetensors");
      await writeFile(path, "no run");
      await page.getByLabel("Saved run").setInputFiles(path);
      await page.getByText("wrong.safetensors could not be loaded").waitFor();
    });
  });
});

describe("the loss curve", () => {
  it("keeps the mean of any number of steps in few bins", () => {
    const curve = new LossCurve();
    for (let step = 1; step <= 10_000; step++) curve.add(step, step);
    curve.evaluate(4000, 1);
    curve.evaluate(10_000, 2);
    const { points } = curve;
    expect(points.length).toBeLessThanOrEqual(302);
    expect(points.at(-1)).toMatchObject({ step: 10_000, validation: 2 });
    const [first, second] = curve.rows;
    expect(first).toMatchObject({ step: 4000, validation: 1 });
    expect(Math.abs(first!.train! - 2000)).toBeLessThan(64);
    expect(Math.abs(second!.train! - 7000)).toBeLessThan(64);
    const steps = points.map(({ step }) => step);
    expect(steps).toEqual(steps.toSorted((a, b) => a - b));
  });
});

describe("the examples", () => {
  it("are the same every time, and what they say is so", () => {
    expect(sums()).toBe(sums());
    for (const line of sums(50).trim().split("\n")) {
      const [a, b, c] = line.split(/[+=]/).map(Number);
      expect(a! + b!).toBe(c);
    }
    expect(sentences(20)).toMatch(/^(The [a-z ]+\.[ \n])+$/);
  });
});
