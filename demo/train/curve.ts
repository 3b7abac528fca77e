/** A point of the loss curve: the mean of the steps up to this one. */
export interface LossPoint {
  readonly step: number;
  readonly train: number | null;
  readonly validation: number | null;
}

interface Bin {
  /** The last step in it. */
  step: number;
  sum: number;
  count: number;
}

const MOST_BINS = 300;

/** The losses of any number of steps in a bounded number of bins, which become wider as there are more. */
export class LossCurve {
  #width = 1;
  #bins: Bin[] = [];
  readonly #validation = new Map<number, number>();

  add(step: number, loss: number): void {
    const last = this.#bins.at(-1);
    if (last && last.count < this.#width) {
      last.step = step;
      last.sum += loss;
      last.count++;
      return;
    }
    this.#bins.push({ step, sum: loss, count: 1 });
    if (this.#bins.length <= MOST_BINS) return;
    this.#width *= 2;
    this.#bins = this.#bins.reduce<Bin[]>((merged, bin, i) => {
      const before = merged.at(-1);
      if (i % 2 === 1 && before) {
        before.step = bin.step;
        before.sum += bin.sum;
        before.count += bin.count;
      } else merged.push({ ...bin });
      return merged;
    }, []);
  }

  evaluate(step: number, loss: number): void {
    this.#validation.set(step, loss);
  }

  /** By rising step. */
  get points(): LossPoint[] {
    const train = new Map(this.#bins.map(({ step, sum, count }) => [step, sum / count]));
    const steps = [...new Set([...train.keys(), ...this.#validation.keys()])].sort((a, b) => a - b);
    return steps.map((step) => ({ step, train: train.get(step) ?? null, validation: this.#validation.get(step) ?? null }));
  }

  /** Every validation loss, with the mean training loss since the one before. */
  get rows(): LossPoint[] {
    let from = 0;
    return [...this.#validation].map(([step, validation]) => {
      const bins = this.#bins.filter((bin) => bin.step > from && bin.step <= step);
      const count = bins.reduce((total, bin) => total + bin.count, 0);
      from = step;
      return { step, train: count > 0 ? bins.reduce((total, bin) => total + bin.sum, 0) / count : null, validation };
    });
  }
}
