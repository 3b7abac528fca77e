import { playwright } from "@vitest/browser-playwright";
import { defineConfig } from "vitest/config";
import { browserArguments, findBrowser } from "./scripts/adapter.mjs";

const browser = findBrowser();

/** The benches import the package by its name, as users would; their tests get the sources. */
const bySource = { alias: [{ find: /^homm-webgpu\/(\w+)$/, replacement: `${import.meta.dirname}/src/$1/index.ts` }] };

/** SwiftShader computes on every core and compiles slowly: one test file at a time, and patience. */
const onSoftwareGpu = { fileParallelism: false, testTimeout: 30_000, hookTimeout: 60_000 };

export default defineConfig({
  test: {
    projects: [
      {
        resolve: bySource,
        test: { name: "unit", include: ["test/*.test.ts", "test/{unit,reference,weights,train}/**/*.test.ts"], testTimeout: 20_000 },
      },
      {
        test: {
          name: "compile",
          include: ["test/compile/**/*.test.ts"],
          pool: "forks",
          setupFiles: "test/support/setup-compile.ts",
          testTimeout: 30_000,
        },
      },
      {
        test: {
          name: "dawn",
          include: ["test/gpu/**/*.test.ts"],
          pool: "forks",
          globalSetup: "test/support/adapter.ts",
          setupFiles: "test/support/setup-dawn.ts",
          ...onSoftwareGpu,
        },
      },
      {
        // A dependency discovered during a run would reload the page in the middle of a test.
        optimizeDeps: { include: ["fast-check"] },
        test: {
          name: "chromium",
          include: ["test/gpu/**/*.test.ts"],
          browser: {
            enabled: true,
            headless: true,
            screenshotFailures: false,
            provider: playwright({
              launchOptions: {
                args: browserArguments(),
                env: { ...process.env, ...browser?.env } as Record<string, string>,
                ...(browser && { executablePath: browser.executable }),
              },
            }),
            instances: [{ browser: "chromium" }],
          },
          ...onSoftwareGpu,
        },
      },
      {
        test: { name: "types", include: ["test/types/**/*.test.ts"], testTimeout: 120_000, hookTimeout: 120_000 },
      },
      {
        test: {
          name: "package",
          include: ["test/package/**/*.test.ts"],
          pool: "forks",
          globalSetup: "test/support/adapter.ts",
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        test: {
          name: "examples",
          include: ["test/examples/**/*.test.ts"],
          pool: "forks",
          globalSetup: "test/support/adapter.ts",
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        test: {
          name: "pages",
          include: ["test/pages/**/*.test.ts"],
          globalSetup: "test/support/serve-demo.ts",
          fileParallelism: false,
          // They wait for what a page has to become, and other work on the machine may hold it up.
          expect: { poll: { timeout: 100_000 } },
          testTimeout: 240_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
