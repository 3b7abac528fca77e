import { readFileSync } from "node:fs";
import type { Page } from "playwright-core";
import { describe, expect, inject, it } from "vitest";
import { loadJson } from "../support/fixtures.ts";
import { openPage } from "../support/pages.ts";

/** Computed by the original model in float64; test/gpu/models_golden.test.ts holds Dawn to the same text. */
const { cases } = await loadJson<{ cases: Record<string, { greedy_text: string }> }>("test/fixtures/hlm_shakespeare.expected.json");

/** The page with its model loaded. */
async function openReady(): Promise<{ page: Page; problems: string[] }> {
  const opened = await openPage();
  await generateButton(opened.page).and(opened.page.locator(":enabled")).waitFor();
  return opened;
}

const generateButton = (page: Page) => page.getByRole("button", { name: "Generate" });
const stopButton = (page: Page) => page.getByRole("button", { name: "Stop" });
const written = (page: Page) => page.locator("#written").textContent();
const status = (page: Page) => page.getByRole("status").textContent();

async function fill(page: Page, fields: Readonly<Record<string, string>>): Promise<void> {
  for (const [label, value] of Object.entries(fields)) await page.getByLabel(label, { exact: true }).fill(value);
}

async function finished(page: Page): Promise<void> {
  await generateButton(page).and(page.locator(":enabled")).waitFor();
}

/** Every length that the written text had. */
async function watchLengths(page: Page): Promise<() => Promise<number[]>> {
  await page.evaluate(() => {
    const lengths: number[] = [];
    const target = document.getElementById("written")!;
    new MutationObserver(() => lengths.push(target.textContent.length)).observe(target, { childList: true, characterData: true, subtree: true });
    Object.assign(window, { lengths });
  });
  return () => page.evaluate(() => (window as unknown as { lengths: number[] }).lengths);
}

describe("the demo page", () => {
  it.each(Object.entries(cases))("streams the original's greedy continuation of %j", async (prompt, { greedy_text }) => {
    const { page, problems } = await openReady();
    const lengths = await watchLengths(page);
    const count = greedy_text.length - prompt.length;
    await fill(page, { Prompt: prompt, Temperature: "0", Characters: String(count), Seed: "1" });
    await generateButton(page).click();
    await finished(page);
    expect(await page.locator("#text").textContent()).toBe(greedy_text);
    expect(await written(page)).toBe(greedy_text.slice(prompt.length));
    // The text grew piece by piece.
    const grown = [...new Set(await lengths())];
    expect(grown).toEqual(grown.toSorted((a, b) => a - b));
    expect(grown.length).toBeGreaterThan(count / 2);
    expect(await status(page)).toBe(`Done after ${count} characters.`);
    expect(await page.locator("#speed").textContent()).toMatch(/^[\d.]+ tokens\/s$/);
    expect(await page.locator("#adapter").textContent()).toMatch(/\w/);
    expect(await page.locator("#model").textContent()).toContain("1,137,409 parameters");
    expect(problems).toEqual([]);
    await page.close();
  });

  it("writes the same for a seed, another for another, and says which seed it drew", async () => {
    const { page, problems } = await openReady();
    await fill(page, { Prompt: "KING", Temperature: "0.9", "Top-k": "20", Characters: "24" });
    const run = async (seed: string) => {
      await fill(page, { Seed: seed });
      await generateButton(page).click();
      await finished(page);
      return written(page);
    };
    const text = await run("7");
    expect(await run("8")).not.toBe(text);
    expect(await run("7")).toBe(text);
    const drawn = await run("");
    const seed = await page.locator("#used-seed").textContent();
    expect(seed).toMatch(/^\d+$/);
    expect(await run(seed!)).toBe(drawn);
    expect(problems).toEqual([]);
    await page.close();
  });

  it("goes on past the length that the model was trained on", async () => {
    const { page, problems } = await openReady();
    await fill(page, { Characters: "300", Seed: "1" });
    await generateButton(page).click();
    await finished(page);
    const text = await written(page);
    expect(text).toHaveLength(300);
    // A model that has lost the thread repeats a letter without end.
    expect(text).not.toMatch(/(.)\1{7}/);
    expect(problems).toEqual([]);
    await page.close();
  });

  it("Stop ends the text, and another can follow", async () => {
    const { page, problems } = await openReady();
    await fill(page, { Characters: "100000", Seed: "1" });
    expect(await stopButton(page).isDisabled()).toBe(true);
    await generateButton(page).press("Enter");
    await page.waitForFunction(() => document.getElementById("written")!.textContent.length >= 5);
    expect(await generateButton(page).isDisabled()).toBe(true);
    // The keyboard stays where something can be pressed.
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("stop");
    await page.keyboard.press("Enter");
    await finished(page);
    const text = await written(page);
    expect(await status(page)).toBe(`Stopped after ${text!.length} characters.`);
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("generate");
    await page.waitForTimeout(300);
    expect(await written(page)).toBe(text);

    await fill(page, { Characters: "3" });
    await page.getByLabel("Prompt").press("Control+Enter");
    await page.waitForFunction(() => document.getElementById("status")!.textContent === "Done after 3 characters.");
    await fill(page, { Characters: "100000" });
    await page.getByLabel("Prompt").press("Control+Enter");
    await page.waitForFunction(() => document.getElementById("status")!.textContent === "Writing …");
    await page.keyboard.press("Escape");
    await finished(page);
    expect(await status(page)).toMatch(/^Stopped after/);
    expect(problems).toEqual([]);
    await page.close();
  });

  it("keeps painting while it writes", async () => {
    const { page } = await openReady();
    await fill(page, { Characters: "100000", Seed: "1" });
    await generateButton(page).click();
    await page.waitForFunction(() => document.getElementById("written")!.textContent.length >= 2);
    // Frames that never came would end this test by its time limit.
    await page.evaluate(async () => {
      for (let frame = 0; frame < 30; frame++) await new Promise(requestAnimationFrame);
    });
    expect(await status(page)).toBe("Writing …");
    await stopButton(page).click();
    await finished(page);
    await page.close();
  });

  it("names the characters that the model does not know", async () => {
    const { page, problems } = await openReady();
    await fill(page, { Prompt: "Zoë, 42" });
    const message = page.locator("#prompt-problem");
    expect(await message.textContent()).toMatch(/does not know “ë” \(U\+00EB\), “4” \(U\+0034\), “2” \(U\+0032\)\. It knows letters/);
    await generateButton(page).click();
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("prompt");
    expect(await page.getByLabel("Prompt").getAttribute("aria-invalid")).toBe("true");
    expect(await written(page)).toBe("");
    expect(await status(page)).toBe("Ready.");
    await fill(page, { Prompt: "Zoe, for" });
    expect(await message.textContent()).toBe("");
    expect(problems).toEqual([]);
    await page.close();
  });

  it("refuses values out of range and writes nothing", async () => {
    const { page, problems } = await openReady();
    for (const fields of [{ Temperature: "-1" }, { "Top-k": "0" }, { Seed: "-5" }, { Characters: "" }, { Prompt: "" }]) {
      await page.evaluate(() => document.querySelector("form")!.reset());
      await fill(page, fields);
      await generateButton(page).click();
      expect(await page.locator("#form:invalid").count(), JSON.stringify(fields)).toBe(1);
      expect(await status(page)).toBe("Ready.");
    }
    expect(problems).toEqual([]);
    await page.close();
  });

  it.each([
    ["the browser has no WebGPU", () => Object.defineProperty(Navigator.prototype, "gpu", { get: () => undefined }), "offers no WebGPU"],
    ["there is no adapter", () => Object.assign(GPU.prototype, { requestAdapter: async () => null }), "found no graphics adapter"],
  ])("says what to do where %s", async (_case, stub, reason) => {
    const { page, problems } = await openPage();
    await page.addInitScript(stub);
    await page.reload();
    const notice = page.getByRole("alert").filter({ hasText: "This page needs WebGPU" });
    await notice.waitFor();
    const text = await notice.textContent();
    expect(text).toContain(reason);
    expect(text).toContain("Chrome");
    expect(text).toContain("npm start -- --once");
    expect(await generateButton(page).isDisabled()).toBe(true);
    expect(await status(page)).toBe("Not available.");
    expect(problems).toEqual([]);
    await page.close();
  });

  it("shows the download, and says so when it fails", async () => {
    const { page } = await openPage();
    let release = (): void => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    await page.route("**/*.safetensors", async (route) => {
      await held;
      await route.fulfill({ status: 503 });
    });
    await page.reload();
    await page.getByRole("progressbar", { name: "Download of the model" }).waitFor();
    expect(await status(page)).toBe("Downloading the model …");
    release();
    const alert = page.locator("#problem");
    await alert.waitFor();
    expect(await alert.textContent()).toMatch(/could not be loaded.*503/);
    expect(await page.getByRole("progressbar").count()).toBe(0);
    expect(await generateButton(page).isDisabled()).toBe(true);
    await page.close();
  });

  it("asks nobody but its own server", async () => {
    const { page, problems } = await openPage();
    const foreign: string[] = [];
    const { origin } = new URL(inject("demoUrl"));
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (url.protocol !== "data:" && url.protocol !== "blob:" && url.origin !== origin) foreign.push(request.url());
    });
    await page.reload();
    await finished(page);
    expect(foreign).toEqual([]);
    expect(problems).toEqual([]);
    await page.close();
  });

  it.each([390, 1280])("fits into %i pixels", async (width) => {
    const { page } = await openReady();
    await page.setViewportSize({ width, height: 844 });
    await fill(page, { Prompt: "W".repeat(300), Characters: "2" });
    await generateButton(page).click();
    await finished(page);
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
    await page.close();
  });

  it("names every control, and links to the repository that package.json names", async () => {
    const { page } = await openReady();
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll("input, textarea, button, progress")]
        .filter((control) => !(control as HTMLInputElement).labels?.length && !control.textContent && !control.getAttribute("aria-label"))
        .map((control) => control.id),
    );
    expect(nameless).toEqual([]);
    const manifest = JSON.parse(readFileSync("package.json", "utf8"));
    const repository = manifest.repository.url.replace(/^git\+|\.git$/g, "");
    const links = await page.getByRole("link").evaluateAll((all) => all.map((link) => (link as HTMLAnchorElement).href));
    expect(links.length).toBeGreaterThan(0);
    for (const link of links) {
      expect(link).toMatch(new RegExp(`^${repository}/blob/main/`));
      expect(() => readFileSync(link.slice(`${repository}/blob/main/`.length)), link).not.toThrow();
    }
    await page.close();
  });
});
