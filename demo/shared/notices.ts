/** The notices at the top of every page (frame.ts). */
import { element, say } from "./dom.ts";

/** Says in plain words that the page cannot compute here, and what would help. */
export function showNoWebGpu(retry: () => void): void {
  const hasApi = "gpu" in navigator && navigator.gpu;
  element("no-webgpu-reason").textContent = hasApi
    ? "This browser has WebGPU but found no graphics adapter for it."
    : "This browser offers no WebGPU, through which everything here is computed.";
  element("no-webgpu").hidden = false;
  element("no-webgpu-retry", HTMLButtonElement).onclick = () => {
    element("no-webgpu").hidden = true;
    retry();
  };
}

export interface BannerButton {
  readonly label: string;
  readonly press: () => void;
}

/** One notice at a time: what went wrong, or what has been repaired. */
export function showBanner(tone: "wrong" | "busy" | "good", message: string, button?: BannerButton): void {
  const banner = element("banner");
  const control = element("banner-button", HTMLButtonElement);
  banner.dataset["tone"] = tone;
  control.hidden = button === undefined;
  control.textContent = button?.label ?? "";
  control.onclick = () => {
    hideBanner();
    button?.press();
  };
  banner.hidden = false;
  say(element("banner-text"), message);
}

export function hideBanner(): void {
  element("banner").hidden = true;
  element("banner-text").textContent = "";
}
