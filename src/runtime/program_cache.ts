import type { Program } from "./program.ts";

interface Entry<P> {
  readonly program: P;
  /** Recorded into an encoder of the caller's, which may not have been submitted: left to the garbage collector. */
  lent: boolean;
}

/** The programs used last, by what decides them. */
export class ProgramCache<P extends Program = Program> {
  readonly #capacity: number;
  readonly #entries = new Map<string, Entry<P>>();

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get(key: string, lent: boolean, build: () => P): P {
    const kept = this.#entries.get(key);
    const entry = kept && !kept.program.stale ? kept : { program: build(), lent };
    if (kept && kept !== entry && !kept.lent) kept.program.destroy();
    entry.lent ||= lent;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    const [oldest] = this.#entries;
    if (this.#entries.size > this.#capacity && oldest) {
      this.#entries.delete(oldest[0]);
      if (!oldest[1].lent) oldest[1].program.destroy();
    }
    return entry.program;
  }

  destroy(): void {
    for (const { program, lent } of this.#entries.values()) if (!lent) program.destroy();
    this.#entries.clear();
  }
}
