import { create, globals } from "webgpu";

/** Gives Node a `navigator.gpu`. The instance stays reachable through it: Dawn crashes once the instance is collected. */
export function installDawn(options: string[]): void {
  Object.assign(globalThis, globals);
  // Node 20 has no navigator.
  if (!globalThis.navigator) Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
  Object.defineProperty(globalThis.navigator, "gpu", { value: create(options), configurable: true });
}
