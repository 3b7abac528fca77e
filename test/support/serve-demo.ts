import { preview } from "vite";
import type { TestProject } from "vitest/node";

declare module "vitest" {
  interface ProvidedContext {
    demoUrl: string;
  }
}

/** Serves the built demo to the tests of its pages, below a path as a static host might; `npm run build:demo` comes first. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await preview({ configFile: "vite.demo.config.ts", base: "/some/path/", preview: { port: 0 } });
  const [url] = server.resolvedUrls?.local ?? [];
  if (!url) throw new Error("the preview server has no address");
  project.provide("demoUrl", url);
  return () => server.close();
}
