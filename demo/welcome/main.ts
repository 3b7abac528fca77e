/** Says whether the other pages will find a GPU. */
import { element, say } from "../shared/dom.ts";
import { showNoWebGpu } from "../shared/notices.ts";

const line = element("adapter");

async function look(): Promise<void> {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  line.dataset["found"] = adapter ? "yes" : "no";
  if (!adapter) {
    say(line, "No GPU was found here.");
    showNoWebGpu(() => void look());
    return;
  }
  const { description, vendor, architecture, isFallbackAdapter } = adapter.info;
  const name = description || [vendor, architecture].filter(Boolean).join(" ") || "a GPU";
  const software = isFallbackAdapter || /swiftshader|llvmpipe|basic render/i.test(name);
  say(line, `Ready: ${name}${software ? ", which computes on the CPU, so everything is slow" : ""}.`);
}

void look();
