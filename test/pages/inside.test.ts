import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { drawnIn, isDrawn, loseGpu, picture, type VisitOptions, visit } from "../support/pages.ts";

const desktop = { width: 1280, height: 900 };
const TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer";

async function onPage(options: VisitOptions & { query?: string }, act: (page: Page) => Promise<void>): Promise<void> {
  const { query = "", ...rest } = options;
  await visit(`inside.html${query}`, { viewport: desktop, ...rest }, async ({ page }) => {
    await ready(page);
    await act(page);
  });
}

async function ready(page: Page): Promise<void> {
  await page
    .getByRole("status")
    .filter({ hasText: /^Ready\. / })
    .waitFor();
  await expect.poll(() => isDrawn(page, "#view", "--line-b")).toBe(true);
}

const view = (page: Page) => page.getByRole("application", { name: "Path of the text" });
const slider = (page: Page) => page.getByRole("slider", { name: "Up to character" });
const status = (page: Page) => page.getByRole("status").textContent();
const shares = async (page: Page) => (await page.locator("#shares").textContent()) ?? "";

/** The picture as a number, which is another one for another picture. */
function fingerprint(page: Page): Promise<number> {
  return page.locator("#view canvas").evaluate((canvas: HTMLCanvasElement) => {
    const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
    const context = copy.getContext("2d", { willReadFrequently: true })!;
    context.drawImage(canvas, 0, 0);
    const words = new Uint32Array(context.getImageData(0, 0, copy.width, copy.height).data.buffer);
    return words.reduce((hash, word) => (Math.imul(hash, 31) + word) >>> 0, 7);
  });
}

/** Does something to the picture, waits until it is another one, and says which. */
async function changed(page: Page, act: () => Promise<unknown>): Promise<number> {
  const before = await settled(page);
  await act();
  await expect.poll(() => fingerprint(page)).not.toBe(before);
  return settled(page);
}

/** The picture that was asked for last: the page says when it has come, and the canvas shows the same twice. */
async function settled(page: Page): Promise<number> {
  let last = Number.NaN;
  await expect
    .poll(async () => {
      const before = last;
      const isShown = (await view(page).getAttribute("data-picture")) === "shown";
      last = isShown ? await fingerprint(page) : Number.NaN;
      return last === before;
    })
    .toBe(true);
  return last;
}

/** Where the chosen character is seen. */
async function mark(page: Page): Promise<{ x: number; y: number }> {
  await settled(page);
  const { pixels, x, y } = await drawnIn(page, "#view", "--line-b");
  expect(pixels).toBeGreaterThan(20);
  const box = (await view(page).boundingBox())!;
  return { x: box.x + x * box.width, y: box.y + y * box.height };
}

describe("the path", () => {
  it("is drawn from early to late, with the last character marked", async () => {
    await onPage({}, async (page) => {
      expect(await isDrawn(page, "#view", "--line-a")).toBe(true);
      expect(await status(page)).toMatch(/^Ready\. 84 characters; the three axes hold \d+ % of their spread\.$/);
      expect(await page.locator("#shown").textContent()).toBe(TEXT);
      expect(await page.locator("#shown mark").textContent()).toBe("r");
      const [first = 0, second = 0, third = 0, all = 0] = (await shares(page)).match(/[\d.]+/g)!.map(Number);
      expect(first).toBeGreaterThanOrEqual(second);
      expect(second).toBeGreaterThanOrEqual(third);
      expect(Math.abs(first + second + third - all)).toBeLessThanOrEqual(2);
      await picture(page, "inside-path");
    });
  });

  it("is another one in other layers, for other orders and for what each character adds", async () => {
    await onPage({}, async (page) => {
      const seen = [await settled(page)];
      seen.push(await changed(page, () => page.getByLabel("Layer").selectOption({ label: "3" })));
      const mean = await shares(page);
      seen.push(await changed(page, () => page.getByLabel("Moments").selectOption("second order")));
      seen.push(await changed(page, () => page.getByLabel("Show", { exact: true }).selectOption("what each character adds")));
      expect(await shares(page)).not.toBe(mean);
      seen.push(await changed(page, () => page.getByRole("checkbox", { name: /Stretch/ }).uncheck()));
      expect(new Set(seen).size).toBe(seen.length);
      // And back to where it was.
      await page.getByRole("checkbox", { name: /Stretch/ }).check();
      await page.getByLabel("Show", { exact: true }).selectOption("the averages after each character");
      await page.getByLabel("Moments").selectOption("all");
      await page.getByLabel("Layer").selectOption({ label: "1" });
      await expect.poll(() => fingerprint(page)).toBe(seen[0]);
    });
  });

  it("follows another text", async () => {
    await onPage({}, async (page) => {
      await page.getByLabel("Text", { exact: true }).fill("KING");
      await page.getByLabel("Text", { exact: true }).press("Control+Enter");
      await page.getByText(/^Ready\. 4 characters/).waitFor();
      expect(await page.locator("#shown").textContent()).toBe("KING");
      expect(await slider(page).getAttribute("aria-valuetext")).toBe("4 of 4: G");
      // Four points span three dimensions at most.
      expect(await shares(page)).toMatch(/100 % together$/);
      await page.getByLabel("Text", { exact: true }).fill("K");
      await page.getByRole("button", { name: "Follow" }).click();
      await page.getByText(/^Ready\. 1 character; /).waitFor();
    });
  });

  it("is chosen from with the slider's keys, and what comes later is faint", async () => {
    await onPage({}, async (page) => {
      await slider(page).focus();
      const early = await changed(page, () => page.keyboard.press("Home"));
      expect(await page.locator("#shown mark").textContent()).toBe("T");
      expect(await page.locator("#shown .later").textContent()).toBe(TEXT.slice(1));
      expect(await slider(page).getAttribute("aria-valuetext")).toBe("1 of 84: T");
      expect(await isDrawn(page, "#view", "--line-c")).toBe(false);
      expect(await changed(page, () => page.keyboard.press("ArrowRight"))).not.toBe(early);
      expect(await page.locator("#shown mark").textContent()).toBe("o");
    });
  });
});

describe("the view", () => {
  it("turns and comes nearer by keys, and starts over", async () => {
    await onPage({}, async (page) => {
      const first = await settled(page);
      await view(page).focus();
      const seen = [first];
      for (const key of ["ArrowLeft", "ArrowUp", "+"]) seen.push(await changed(page, () => page.keyboard.press(key)));
      expect(new Set(seen).size).toBe(4);
      for (const key of ["-", "ArrowDown"]) await changed(page, () => page.keyboard.press(key));
      expect(await changed(page, () => page.keyboard.press("ArrowRight"))).toBe(first);
      await changed(page, () => page.keyboard.press("ArrowDown"));
      await page.keyboard.press("Home");
      await expect.poll(() => fingerprint(page)).toBe(first);
    });
  });

  it("turns when it is dragged, comes nearer when it is scrolled, and a click chooses a character", async () => {
    await onPage({}, async (page) => {
      const last = await mark(page);
      await slider(page).focus();
      await changed(page, () => page.keyboard.press("Home"));
      expect(await page.locator("#shown mark").textContent()).toBe("T");
      const first = await mark(page);
      await changed(page, () => page.mouse.click(last.x, last.y));
      expect(await page.locator("#shown mark").textContent()).toBe("r");
      await changed(page, () => page.mouse.click(first.x, first.y));
      expect(await page.locator("#shown mark").textContent()).toBe("T");

      const box = (await view(page).boundingBox())!;
      await page.mouse.move(box.x + 40, box.y + 40);
      await changed(page, async () => {
        await page.mouse.down();
        await page.mouse.move(box.x + 190, box.y + 90, { steps: 6 });
        await page.mouse.up();
      });
      // A drag chooses nothing.
      expect(await page.locator("#shown mark").textContent()).toBe("T");
      await changed(page, () => page.mouse.wheel(0, -300));
      expect(await page.evaluate(() => scrollY)).toBe(0);
    });
  });

  it("turns under one finger and comes nearer under two", async () => {
    await onPage({ hasTouch: true, viewport: { width: 390, height: 844 } }, async (page) => {
      await view(page).scrollIntoViewIfNeeded();
      await settled(page);
      const scrolled = await page.evaluate(() => scrollY);
      const box = (await view(page).boundingBox())!;
      const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
      const session = await page.context().newCDPSession(page);
      const touch = (type: "touchStart" | "touchMove" | "touchEnd", ...points: [number, number][]) =>
        session.send("Input.dispatchTouchEvent", { type, touchPoints: points.map(([px, py], id) => ({ x: px, y: py, id })) });
      const turned = await changed(page, async () => {
        await touch("touchStart", [x, y]);
        for (let step = 1; step <= 5; step++) await touch("touchMove", [x + 10 * step, y + 4 * step]);
        await touch("touchEnd");
      });
      const near = await changed(page, async () => {
        await touch("touchStart", [x - 30, y], [x + 30, y]);
        for (let step = 1; step <= 5; step++) await touch("touchMove", [x - 30 - 8 * step, y], [x + 30 + 8 * step, y]);
        await touch("touchEnd");
      });
      expect(near).not.toBe(turned);
      expect(await page.evaluate(() => scrollY)).toBe(scrolled);
    });
  });

  it("drifts until the visitor turns it, unless motion is to be reduced", async () => {
    await onPage({ reducedMotion: "no-preference" }, async (page) => {
      const before = await fingerprint(page);
      await expect.poll(() => fingerprint(page)).not.toBe(before);
      await view(page).press("ArrowLeft");
      await settled(page);
    });
  });

  it("changes its colours with the scheme", async () => {
    await onPage({ colorScheme: "light" }, async (page) => {
      expect(await isDrawn(page, "#view", "--raised")).toBe(true);
      await changed(page, () => page.emulateMedia({ colorScheme: "dark" }));
      expect(await isDrawn(page, "#view", "--raised")).toBe(true);
    });
  });
});

describe("when something is wrong", () => {
  it("names the characters that the model does not know", async () => {
    await onPage({}, async (page) => {
      await page.getByLabel("Text", { exact: true }).fill("Zoë");
      expect(await page.locator("#text-problem").textContent()).toBe("The model does not know “ë”.");
      await page.getByRole("button", { name: "Follow" }).click();
      expect(await page.evaluate(() => document.activeElement?.id)).toBe("text");
      expect(await status(page)).toMatch(/^Ready\. 84 characters/);
      await page.getByLabel("Text", { exact: true }).fill("Zoe");
      expect(await page.locator("#text-problem").textContent()).toBe("");
    });
  });

  it("draws the same again after the GPU was lost", async () => {
    await onPage({ query: "?debug" }, async (page) => {
      const before = await changed(page, () => page.getByLabel("Layer").selectOption({ label: "2" }));
      await loseGpu(page);
      await page.getByRole("alert").filter({ hasText: "The path was computed anew." }).waitFor();
      await ready(page);
      expect(await page.getByLabel("Layer").inputValue()).toBe("1");
      await page.getByRole("button", { name: "Close" }).click();
      await expect.poll(() => fingerprint(page)).toBe(before);
    });
  });

  it("draws without a complaint of the GPU where the browser can show its canvas", async () => {
    // Without a screen this browser composes pages on a GPU, too, when told so; its pictures stay out of reach.
    const browserArgs = ["--ignore-gpu-blocklist", "--use-vulkan=swiftshader", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"];
    await visit("inside.html?debug=canvas", { browserArgs, viewport: desktop }, async ({ page }) => {
      await page.getByText(/^Ready\. 84 characters/).waitFor();
      await view(page).focus();
      for (const key of ["ArrowLeft", "ArrowUp", "+"]) await page.keyboard.press(key);
      await page.waitForTimeout(1000);
      expect((await page.getByRole("alert").allTextContents()).join("")).toBe("");
      expect(await status(page)).toMatch(/^Ready\./);
    });
  });

  it("goes on by copies where the browser loses the GPU with the first picture on its canvas", async () => {
    await visit("inside.html?debug=canvas", { viewport: desktop, expected: /Instance reference|GPU|WebGPU/ }, async ({ page }) => {
      await page.getByRole("alert").filter({ hasText: "The path was computed anew." }).waitFor();
      await ready(page);
    });
  });
});
