import { readFileSync } from "node:fs";
import { describe, expect, inject, it } from "vitest";
import { frame } from "../../demo/shared/frame.ts";
import { pages } from "../../demo/shared/pages.ts";
import { NO_ADAPTER, NO_WEBGPU, picture, visit } from "../support/pages.ts";

const desktop = { width: 1280, height: 800 };
const phone = { width: 390, height: 844 };

describe("the frame of a page", () => {
  it("refuses a page without a line in pages.ts, and one without <main>", () => {
    expect(() => frame("<head></head><main></main>", "other.html")).toThrow("demo/other.html must have a line in demo/shared/pages.ts");
    expect(() => frame("<head></head>", "index.html")).toThrow("demo/index.html must have <main>");
  });
});

describe.each(pages)("$file", ({ file, name }) => {
  it.each([
    ["light", desktop],
    ["dark", desktop],
    ["light", phone],
    ["dark", phone],
  ] as const)("fits and can be used by everybody, %s, %o", async (colorScheme, viewport) => {
    await visit(file, { colorScheme, viewport }, async ({ page }) => {
      await page
        .getByRole("status")
        .filter({ hasText: /^(Ready|Idle|Drag)/ })
        .first()
        .waitFor();
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(viewport.width);
      expect(await page.getByRole("heading", { level: 1 }).count()).toBe(1);
      expect(await page.getByRole("navigation").locator("[aria-current=page]").textContent()).toBe(name);
      await picture(page, `${file.replace(".html", "")}-${colorScheme}-${viewport.width}`);
    });
  });

  it.each([
    ["the browser has no WebGPU", NO_WEBGPU, "offers no WebGPU"],
    ["there is no adapter", NO_ADAPTER, "found no graphics adapter"],
  ])("says what to do where %s", async (_case, stub, reason) => {
    await visit(file, { before: new Function(stub) as () => void, beforeInWorker: stub }, async ({ page }) => {
      const notice = page.getByRole("alert").filter({ hasText: "This page needs WebGPU" });
      await notice.waitFor();
      const text = await notice.textContent();
      expect(text).toContain(reason);
      expect(text).toContain("Chrome");
      expect(text).toContain("npm start -- --once");
      // It looks again when asked, and finds the same.
      await page.getByRole("button", { name: "Look again" }).press("Enter");
      await notice.waitFor();
    });
  });
});

describe("the site", () => {
  it("leads from page to page by keyboard, and links to files of the repository that package.json names", async () => {
    const manifest = JSON.parse(readFileSync("package.json", "utf8"));
    const repository = manifest.repository.url.replace(/^git\+|\.git$/g, "");
    await visit("", {}, async ({ page }) => {
      const base = inject("demoUrl");
      const links = await page.getByRole("link").evaluateAll((all) => all.map((link) => (link as HTMLAnchorElement).href));
      const outside = links.filter((link) => !link.startsWith(base));
      expect(outside.length).toBeGreaterThan(0);
      for (const link of outside) {
        expect(link).toMatch(new RegExp(`^${repository}/blob/main/`));
        expect(() => readFileSync(link.slice(`${repository}/blob/main/`.length)), link).not.toThrow();
      }
      for (const { file } of pages) expect(links).toContain(`${base}${file}`);

      await page.keyboard.press("Tab");
      expect(await page.evaluate(() => document.activeElement?.textContent)).toBe("Skip to the content");
      await page.keyboard.press("Enter");
      expect(await page.evaluate(() => document.activeElement?.id)).toBe("main");
      await page.getByRole("navigation").getByRole("link", { name: "Generate" }).press("Enter");
      await page.waitForURL("**/generate.html");
      expect(await page.getByRole("heading", { level: 1 }).textContent()).toContain("Text");
    });
  });
});
