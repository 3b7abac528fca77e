import { make } from "../shared/dom.ts";
import { bytes, grouped, short } from "../shared/format.ts";
import type { StateReport } from "./worker.ts";

/** Characters after which the next line break starts a piece of its own, so that long texts are not laid out again with every character. */
const PIECE = 1000;

export interface StrandButtons {
  readonly save: () => void;
  readonly keep: () => void;
}

/** One text: what was given, what came before a branch, what has been written since, and the meters of its memory. */
export class StrandView {
  readonly section: HTMLElement;
  readonly #scroller: HTMLElement;
  readonly #pieces: HTMLElement;
  readonly #meters: Readonly<Record<"speed" | "seen" | "state" | "seed", HTMLElement>>;
  readonly #save: HTMLButtonElement;
  #last = new Text();
  #text: string;
  readonly #given: number;

  /** @param text of which the first `given` characters were not written by the model, and all up to here before a branch */
  constructor(id: number, title: string, text: string, given: number, seed: number, buttons: StrandButtons, branched: boolean) {
    const heading = make("h2", { id: `strand-${id}`, textContent: title });
    this.#text = text;
    this.#given = given;
    this.#pieces = make("span", { className: "written" });
    this.#scroller = make(
      "div",
      { className: "text", tabIndex: 0 },
      make("span", { className: "given", textContent: text.slice(0, given) }),
      make("span", { className: branched ? "earlier" : "", textContent: text.slice(given) }),
      this.#pieces,
    );
    this.#scroller.setAttribute("role", "region");
    this.#scroller.setAttribute("aria-labelledby", heading.id);
    this.#pieces.append(this.#last);
    const meter = (name: string, value: string) => {
      const dd = make("dd", { textContent: value });
      return { dd, row: make("div", {}, make("dt", { textContent: name }), dd) };
    };
    const speed = meter("Speed", "–");
    const seen = meter("Tokens seen", "0");
    const state = meter("Memory", "–");
    const drawn = meter("Seed", String(seed));
    this.#meters = { speed: speed.dd, seen: seen.dd, state: state.dd, seed: drawn.dd };
    this.#save = make("button", { type: "button", textContent: "Save the memory", onclick: buttons.save });
    const keep = make("button", { type: "button", textContent: "Keep only this", onclick: buttons.keep, hidden: !branched });
    this.section = make(
      "div",
      { className: "strand" },
      heading,
      this.#scroller,
      make("dl", { className: "meters" }, speed.row, seen.row, state.row, drawn.row),
      make("div", { className: "buttons" }, this.#save, keep),
    );
  }

  get text(): string {
    return this.#text;
  }

  get given(): number {
    return this.#given;
  }

  get written(): number {
    return this.#text.length - this.#given;
  }

  append(text: string): void {
    const { scrollTop, clientHeight, scrollHeight } = this.#scroller;
    const atEnd = scrollTop + clientHeight > scrollHeight - 40;
    this.#text += text;
    const line = this.#last.length > PIECE ? text.lastIndexOf("\n") + 1 : 0;
    this.#last.appendData(line > 0 ? text.slice(0, line) : text);
    if (line > 0) {
      const piece = make("div");
      this.#last.replaceWith(piece);
      piece.append(this.#last);
      this.#last = new Text(text.slice(line));
      this.#pieces.append(this.#last);
    }
    if (atEnd) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  scrollToEnd(): void {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  showMemory({ seen, remembered, bytes: size }: StateReport, window: number | undefined): void {
    const held = window === undefined ? remembered : Math.min(window, remembered);
    this.#meters.seen.textContent = held === seen ? grouped(seen) : `${grouped(seen)}, ${grouped(held)} of them in memory`;
    this.#meters.state.textContent = bytes(size);
  }

  showSpeed(perSecond: number | undefined): void {
    if (perSecond !== undefined) this.#meters.speed.textContent = `${short(perSecond)} tokens/s`;
  }

  showSeed(seed: number): void {
    this.#meters.seed.textContent = String(seed);
  }

  setWriting(writing: boolean): void {
    this.#scroller.setAttribute("aria-busy", String(writing));
    this.#save.disabled = writing;
  }
}
