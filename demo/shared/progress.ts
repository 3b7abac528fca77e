import { say } from "./dom.ts";

/**
 * A line that says what goes on and a bar that shows how far it is:
 * `<div class="status"><p role="status"></p><progress max="1" aria-label="…" hidden></progress></div>`
 */
export class ProgressLine {
  readonly #line: HTMLElement;
  readonly #bar: HTMLProgressElement;

  constructor(container: HTMLElement) {
    const line = container.querySelector<HTMLElement>("[role=status]");
    const bar = container.querySelector("progress");
    if (!line || !bar) throw new Error("a progress line has a status and a progress bar");
    this.#line = line;
    this.#bar = bar;
  }

  /** @param fraction of what is to be done, from 0 to 1; null where that is unknown, absent where nothing is going on */
  show(message: string, fraction?: number | null): void {
    say(this.#line, message);
    this.#bar.hidden = fraction === undefined;
    if (typeof fraction === "number") this.#bar.value = fraction;
    else this.#bar.removeAttribute("value");
  }
}
