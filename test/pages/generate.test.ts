import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { loadJson } from "../support/fixtures.ts";
import { loseGpu, picture, type VisitOptions, visit } from "../support/pages.ts";

/** Computed by the original model in float64; test/gpu/models_golden.test.ts holds Dawn to the same text. */
const { cases } = await loadJson<{ cases: Record<string, { greedy_text: string }> }>("test/fixtures/hlm_shakespeare.expected.json");
const [[goldenPrompt, { greedy_text: golden }] = ["", { greedy_text: "" }]] = Object.entries(cases);

/** The page with its model loaded. */
async function onPage(options: VisitOptions & { query?: string }, act: (page: Page) => Promise<void>): Promise<void> {
  const { query = "", ...rest } = options;
  await visit(`generate.html?model=original${query.replace("?", "&")}`, rest, async ({ page }) => {
    await ready(page);
    await act(page);
  });
}

const button = (page: Page, name: string) => page.getByRole("button", { name, exact: true });
const status = (page: Page) => page.getByRole("status").textContent();
const text = async (page: Page, title = "Text") => (await page.getByRole("region", { name: title, exact: true }).textContent()) ?? "";
const meter = (page: Page, name: string, at = 0) => page.locator(`dt:text-is("${name}") + dd`).nth(at).textContent();

async function fill(page: Page, fields: Readonly<Record<string, string>>): Promise<void> {
  for (const [label, value] of Object.entries(fields)) await page.getByLabel(label, { exact: true }).fill(value);
}

async function ready(page: Page): Promise<void> {
  await button(page, "Generate").and(page.locator(":enabled")).waitFor();
}

async function generate(page: Page, fields: Readonly<Record<string, string>>): Promise<string> {
  await fill(page, fields);
  await writes(page, "Generate");
  return await text(page);
}

/** Presses the button, and waits until the page has said that it writes and can write again. */
async function writes(page: Page, name: string): Promise<void> {
  // A few characters may be written before one can look: what the page says is noted there.
  const said = await page.getByRole("status").evaluateHandle((line) => {
    const texts: string[] = [];
    new MutationObserver(() => texts.push(line.textContent)).observe(line, { childList: true, characterData: true, subtree: true });
    return texts;
  });
  await button(page, name).click();
  await expect.poll(() => said.jsonValue()).toContain("Writing …");
  await ready(page);
}

async function written(page: Page, characters: number, title = "Text"): Promise<void> {
  const region = page.getByRole("region", { name: title, exact: true });
  await expect.poll(async () => (await region.textContent())?.length).toBeGreaterThanOrEqual(characters);
}

describe("writing", () => {
  it.each(Object.entries(cases))("streams the original's greedy continuation of %j", async (prompt, { greedy_text }) => {
    await onPage({}, async (page) => {
      const lengths = await page.evaluateHandle(() => {
        const seen: number[] = [];
        const target = document.getElementById("strands")!;
        new MutationObserver(() => seen.push(target.querySelector(".text")?.textContent.length ?? 0)).observe(target, {
          childList: true,
          characterData: true,
          subtree: true,
        });
        return seen;
      });
      const count = greedy_text.length - prompt.length;
      expect(await generate(page, { Prompt: prompt, Temperature: "0", Characters: String(count), Seed: "1" })).toBe(greedy_text);
      // The text grew piece by piece.
      const grown = [...new Set(await lengths.jsonValue())];
      expect(grown).toEqual(grown.toSorted((a, b) => a - b));
      expect(grown.length).toBeGreaterThan(5);
      expect(await status(page)).toBe(`Done after ${count} characters.`);
      expect(await meter(page, "Speed")).toMatch(/^[\d.,]+ tokens\/s$/);
      expect(await meter(page, "Adapter")).toMatch(/\w/);
      expect(await meter(page, "Model")).toContain("1,137,409 parameters");
      // Everything but the last character has been taken in.
      expect(await meter(page, "Tokens seen")).toBe(String(greedy_text.length - 1));
      expect(await meter(page, "Memory")).toMatch(/^[\d.]+ kB$/);
    });
  });

  it("writes the same for a seed, another for another, and says which seed it drew", async () => {
    await onPage({}, async (page) => {
      const sampling = { Prompt: "KING", Temperature: "0.9", "Top-k": "20", Characters: "24" };
      const seven = await generate(page, { ...sampling, Seed: "7" });
      expect(seven).toHaveLength(28);
      expect(await generate(page, { Seed: "8" })).not.toBe(seven);
      expect(await generate(page, { Seed: "7" })).toBe(seven);
      const drawn = await generate(page, { Seed: "" });
      const seed = (await meter(page, "Seed")) ?? "";
      expect(seed).toMatch(/^\d+$/);
      expect(await generate(page, { Seed: seed })).toBe(drawn);
    });
  });

  it("goes on past the length that the model was trained on", async () => {
    await onPage({}, async (page) => {
      const all = await generate(page, { Characters: "300", Seed: "1" });
      expect(all).toHaveLength("ROMEO:".length + 300);
      // A model that has lost the thread repeats a letter without end.
      expect(all).not.toMatch(/(.)\1{7}/);
      expect(await meter(page, "Tokens seen")).toMatch(/^305, \d\d of them in memory$/);
    });
  });

  it("a window limits what is remembered, and changes the text", async () => {
    await onPage({}, async (page) => {
      const all = await generate(page, { Characters: "60", Temperature: "0", Seed: "1" });
      const memory = await meter(page, "Memory");
      const windowed = await generate(page, { Window: "8" });
      expect(windowed).not.toBe(all);
      expect(await meter(page, "Tokens seen")).toBe("65, 8 of them in memory");
      expect(await meter(page, "Memory")).not.toBe(memory);
    });
  });

  it("keeps painting while it writes", async () => {
    await onPage({}, async (page) => {
      await fill(page, { Characters: "100000", Seed: "1" });
      await button(page, "Generate").click();
      await written(page, 10);
      // Frames that never came would end this test by its time limit.
      await page.evaluate(async () => {
        for (let frame = 0; frame < 30; frame++) await new Promise(requestAnimationFrame);
      });
      expect(await status(page)).toBe("Writing …");
      await button(page, "Pause").click();
      await ready(page);
    });
  });
});

describe("pausing", () => {
  it("Pause and Continue give the text that one run gives, by keyboard alone", async () => {
    await onPage({}, async (page) => {
      await fill(page, { Characters: "100000", Seed: "5" });
      await page.getByLabel("Prompt").press("Control+Enter");
      await written(page, 20);
      // The keyboard stays where something can be pressed.
      await page.keyboard.press("Escape");
      await ready(page);
      const part = await text(page);
      expect(await status(page)).toBe(`Paused after ${part.length - 6} characters.`);
      await page.waitForTimeout(300);
      expect(await text(page)).toBe(part);

      await fill(page, { Characters: "110" });
      await button(page, "Continue").focus();
      await page.keyboard.press("Enter");
      await expect.poll(() => status(page)).toBe("Done after 110 characters.");
      const whole = await text(page);
      expect(whole).toHaveLength(part.length + 110);
      expect(await generate(page, { Characters: String(whole.length - 6) })).toBe(whole);
    });
  });

  it("moves the focus from Generate to Pause and on to Continue", async () => {
    await onPage({}, async (page) => {
      const focused = () => page.evaluate(() => document.activeElement?.textContent);
      await fill(page, { Characters: "100000" });
      await button(page, "Generate").press("Enter");
      await written(page, 8);
      expect(await focused()).toBe("Pause");
      await page.keyboard.press("Enter");
      await ready(page);
      expect(await focused()).toBe("Continue");
    });
  });
});

describe("branching", () => {
  it("lets two continuations of one text be written side by side, of which one can be kept", async () => {
    await onPage({ viewport: { width: 1280, height: 900 } }, async (page) => {
      const start = await generate(page, { Characters: "40", Seed: "3" });
      await fill(page, { Characters: "80" });
      await writes(page, "Branch");
      expect(await status(page)).toBe("Done after 80 characters each.");
      const [a, b] = [await text(page, "Continuation A"), await text(page, "Continuation B")];
      expect(a).toHaveLength(start.length + 80);
      expect(a.startsWith(start)).toBe(true);
      expect(b.startsWith(start)).toBe(true);
      expect(b).not.toBe(a);
      expect(await meter(page, "Seed", 0)).not.toBe(await meter(page, "Seed", 1));
      expect(await button(page, "Branch").isDisabled()).toBe(true);
      await picture(page, "generate-branched");

      await button(page, "Keep only this").nth(1).click();
      await page.getByText("One text goes on.").waitFor();
      expect(await text(page)).toBe(b);
      await button(page, "Continue").click();
      await page.getByText("Done after 80 characters.").waitFor();
      expect((await text(page)).startsWith(b)).toBe(true);
    });
  });

  it("leaves the first continuation as it would have been without a branch", async () => {
    await onPage({}, async (page) => {
      const whole = await generate(page, { Characters: "60", Temperature: "0", Seed: "3" });
      await generate(page, { Characters: "20" });
      await fill(page, { Characters: "40" });
      await button(page, "Branch").click();
      await page.getByText("Done after 40 characters each.").waitFor();
      // The likeliest character is the same under every seed.
      expect(await text(page, "Continuation A")).toBe(whole);
      expect(await text(page, "Continuation B")).toBe(whole);
    });
  });
});

describe("saving", () => {
  it("saves the memory as a file, from which a new visit goes on as this one would have", async () => {
    let file: { name: string; mimeType: string; buffer: Buffer } | undefined;
    let whole = "";
    await onPage({}, async (page) => {
      whole = await generate(page, { Characters: "70", Temperature: "0", Seed: "1" });
      await generate(page, { Characters: "30" });
      const download = page.waitForEvent("download");
      await button(page, "Save the memory").click();
      const saved = await download;
      expect(saved.suggestedFilename()).toBe("moments.safetensors");
      file = { name: saved.suggestedFilename(), mimeType: "application/octet-stream", buffer: await readFile(await saved.path()) };
      expect(await status(page)).toMatch(/^Saved [\d.]+ kB: the memory and the text\.$/);
    });
    await onPage({}, async (page) => {
      await fill(page, { Characters: "40", Temperature: "0" });
      const chooser = page.waitForEvent("filechooser");
      await button(page, "Load a memory …").click();
      await (await chooser).setFiles(file!);
      await page.getByText("Loaded. Continue goes on from there.").waitFor();
      expect(await text(page)).toBe(whole.slice(0, 36));
      await button(page, "Continue").click();
      await page.getByText("Done after 40 characters.").waitFor();
      expect(await text(page)).toBe(whole);
    });
  });

  it("refuses a file that is none, and leaves the text as it is", async () => {
    await onPage({}, async (page) => {
      const before = await generate(page, { Characters: "5" });
      for (const file of ["README.md", "demo/public/checkpoints/hlm_shakespeare.safetensors"]) {
        await page.getByLabel("Saved memory").setInputFiles(file);
        const alert = page.getByRole("alert").filter({ hasText: `${basename(file)} could not be loaded` });
        await alert.waitFor();
        expect(await text(page)).toBe(before);
        await alert.getByRole("button", { name: "Close" }).click();
      }
    });
  });
});

describe("when something is wrong", () => {
  it("names the characters that the model does not know", async () => {
    await onPage({}, async (page) => {
      await fill(page, { Prompt: "Zoë, 42" });
      const message = page.locator("#prompt-problem");
      expect(await message.textContent()).toMatch(/does not know “ë” \(U\+00EB\), “4” \(U\+0034\), “2” \(U\+0032\)\. It knows letters/);
      await button(page, "Generate").click();
      expect(await page.evaluate(() => document.activeElement?.id)).toBe("prompt");
      expect(await page.getByLabel("Prompt").getAttribute("aria-invalid")).toBe("true");
      expect(await page.locator("#strands").textContent()).toBe("What the model writes appears here.");
      expect(await status(page)).toBe("Ready.");
      await fill(page, { Prompt: "Zoe, for" });
      expect(await message.textContent()).toBe("");
    });
  });

  it("refuses values out of range and writes nothing", async () => {
    await onPage({}, async (page) => {
      for (const fields of [{ Temperature: "-1" }, { "Top-k": "0" }, { Seed: "-5" }, { Window: "0" }, { Characters: "" }, { Prompt: "" }]) {
        await page.evaluate(() => document.querySelector("form")!.reset());
        await fill(page, fields);
        await button(page, "Generate").click();
        expect(await page.locator("#form:invalid").count(), JSON.stringify(fields)).toBe(1);
        expect(await status(page)).toBe("Ready.");
      }
    });
  });

  it("shows the download, says so when it fails, and tries again", async () => {
    await visit("", { expected: /503/ }, async ({ page }) => {
      let release = (): void => {};
      const held = new Promise<void>((resolve) => {
        release = resolve;
      });
      await page.route("**/*.safetensors", async (route) => {
        await held;
        await route.fulfill({ status: 503 });
      });
      await page.getByRole("navigation").getByRole("link", { name: "Generate" }).click();
      await page.getByRole("progressbar", { name: "Download of the model" }).waitFor();
      expect(await status(page)).toBe("Downloading the model …");
      release();
      const alert = page.getByRole("alert").filter({ hasText: "This did not work" });
      await alert.waitFor();
      expect(await alert.textContent()).toContain("503");
      expect(await status(page)).toBe("Not available.");
      expect(await page.getByRole("progressbar").count()).toBe(0);
      expect(await button(page, "Generate").isDisabled()).toBe(true);
      await page.unroute("**/*.safetensors");
      await alert.getByRole("button", { name: "Try again" }).click();
      await ready(page);
    });
  });

  it("goes on with the text after the GPU was lost", async () => {
    await onPage({ query: "?debug" }, async (page) => {
      const count = golden.length - goldenPrompt.length;
      await fill(page, { Prompt: goldenPrompt, Temperature: "0", Characters: String(count), Seed: "1" });
      await button(page, "Generate").click();
      await written(page, goldenPrompt.length + 5);
      await loseGpu(page);
      await page.getByRole("alert").filter({ hasText: "The GPU is back after a loss" }).waitFor();
      await page.getByText(/Done after/).waitFor();
      expect(await text(page)).toBe(golden);
      await page.getByRole("button", { name: "Close" }).click();
    });
  });

  it("asks before it tries a second time in a row", async () => {
    // A second loss soon after the first counts, by the page's clock, which is slow here: a busy machine may take long in between.
    const slow = () => {
      const now = performance.now.bind(performance);
      performance.now = () => now() / 20;
    };
    await onPage({ query: "?debug", before: slow }, async (page) => {
      const before = await generate(page, { Characters: "10" });
      await loseGpu(page);
      await page.getByRole("alert").filter({ hasText: "The GPU is back" }).waitFor();
      await loseGpu(page);
      const alert = page.getByRole("alert").filter({ hasText: "took the GPU away again" });
      await alert.waitFor();
      expect(await button(page, "Generate").isDisabled()).toBe(true);
      await alert.getByRole("button", { name: "Try again" }).click();
      await ready(page);
      expect(await text(page)).toBe(before);
      await fill(page, { Characters: "5" });
      await button(page, "Continue").click();
      await page.getByText("Done after 5 characters.").waitFor();
    });
  });
});

describe("the model with fading averages", () => {
  it("is what the page begins with; it writes on without starting its memory anew", async () => {
    await visit("generate.html", {}, async ({ page }) => {
      await ready(page);
      expect(await page.getByLabel("Model", { exact: true }).inputValue()).toBe("fading");
      expect(await page.getByLabel("Window", { exact: true }).isDisabled()).toBe(true);
      expect(await page.getByRole("checkbox").count()).toBe(0);
      const all = await generate(page, { Characters: "300", Seed: "1" });
      expect(all).toHaveLength("ROMEO:".length + 300);
      expect(all).not.toMatch(/(.)\1{7}/);
      expect(await meter(page, "Tokens seen")).toBe("305");
      await picture(page, "generate-fading");
    });
  });

  it("gives way to the original's when that is chosen", async () => {
    await visit("generate.html", {}, async ({ page }) => {
      await ready(page);
      await page.getByLabel("Model", { exact: true }).selectOption("original");
      await page.waitForURL("**/generate.html?model=original");
      await ready(page);
      expect(await meter(page, "Model")).toContain("1,137,409 parameters");
      expect(await page.getByLabel("Window", { exact: true }).isEnabled()).toBe(true);
    });
  });
});

it.each([390, 1280])("fits into %i pixels", async (width) => {
  await onPage({ viewport: { width, height: 844 } }, async (page) => {
    await generate(page, { Prompt: "W".repeat(300), Characters: "2" });
    await fill(page, { Characters: "4" });
    await button(page, "Branch").click();
    await page.getByText("Done after 4 characters each.").waitFor();
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
  });
});
