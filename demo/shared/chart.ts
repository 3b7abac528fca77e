import type uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { make } from "./dom.ts";

// uPlot asks Intl for the browser's language while it is loaded; Chromium under a POSIX locale has one that Intl refuses ("en-US@posix").
try {
  Intl.getCanonicalLocales(navigator.language);
} catch {
  Object.defineProperty(navigator, "language", { value: "en-US", configurable: true });
}
const { default: Plot } = await import("uplot");

export interface Series {
  readonly label: string;
  /** Which of the colours --line-a, --line-b and so on. */
  readonly line: "a" | "b" | "c" | "d" | "e" | "f";
  /** Computed and not measured, or so that a line beneath it is seen. */
  readonly dashed?: boolean;
  /** Marks every value. */
  readonly points?: boolean;
}

/** A place on the x axis that a line marks. */
export interface Mark {
  readonly x: number;
  readonly label: string;
}

export interface ChartOptions {
  readonly series: readonly Series[];
  /** Logarithmic unless said otherwise. */
  readonly x: { readonly label: string; readonly format: (value: number) => string; readonly base?: 2 | 10; readonly linear?: boolean };
  readonly y: { readonly label: string; readonly format: (value: number) => string; readonly linear?: boolean };
}

/**
 * Lines over two axes, in the colours of the page, with a legend that reads out the values under the pointer. A picture to screen
 * readers: the page has the numbers in a table.
 */
export class Chart {
  readonly #plot: uPlot;
  readonly #frame: HTMLElement;
  readonly #values: readonly HTMLElement[];
  readonly #at: HTMLElement;
  readonly #options: ChartOptions;
  #xRange: readonly [number, number] = [1, 10];
  #marks: readonly Mark[] = [];

  /** @param frame an empty element, which is filled */
  constructor(frame: HTMLElement, options: ChartOptions) {
    this.#frame = frame;
    this.#options = options;
    const { series, x, y } = options;
    const colour = (name: string) => () => getComputedStyle(frame).getPropertyValue(name);
    const axis = (label: string, format: (value: number) => string, filter: uPlot.Axis.Filter, size: number): uPlot.Axis => ({
      label,
      labelSize: 20,
      labelGap: 0,
      font: "12px system-ui, sans-serif",
      labelFont: "13px system-ui, sans-serif",
      stroke: colour("--quiet"),
      grid: { stroke: colour("--rule"), width: 1, filter },
      ticks: { stroke: colour("--rule"), width: 1, size: 5, filter },
      filter,
      values: (_plot, splits) => splits.map((value) => (value === null ? "" : format(value))),
      size,
    });
    this.#values = series.map(() => make("span", { className: "value" }));
    this.#at = make("span", { className: "value" });
    const legend = make(
      "ul",
      { className: "legend" },
      ...series.map(({ label, line, dashed }, i) => {
        const swatch = make("span", { className: dashed ? "swatch dashed" : "swatch" });
        swatch.style.setProperty("--colour", `var(--line-${line})`);
        return make("li", {}, swatch, `${label} `, this.#values[i] ?? "");
      }),
      make("li", {}, this.#at),
    );
    const plot = make("div", { className: "plot" });
    plot.setAttribute("role", "img");
    frame.append(legend, plot);
    this.#plot = new Plot(
      {
        width: plot.clientWidth || 300,
        height: plot.clientHeight || 240,
        padding: [8, 22, 0, 0],
        legend: { show: false },
        cursor: { drag: { x: false, y: false }, points: { size: 6 } },
        scales: {
          x: { time: false, distr: x.linear ? 1 : 3, log: x.base ?? 10, range: () => [...this.#xRange] },
          y: { distr: y.linear ? 1 : 3, range: (_plot, min, max) => (y.linear ? padded(min, max) : decades(min, max)) },
        },
        axes: [axis(x.label, x.format, x.linear || x.base === 2 ? all : roundOnes, 32), axis(y.label, y.format, y.linear ? all : roundOnes, 74)],
        series: [
          {},
          ...series.map(({ label, line, dashed, points = false }) => ({
            label,
            stroke: colour(`--line-${line}`),
            width: 2,
            ...(dashed && { dash: [6, 5] }),
            points: { show: points, size: 6, fill: colour(`--line-${line}`) },
            spanGaps: true,
          })),
        ],
        hooks: { setCursor: [() => this.#readOut()], draw: [(drawn) => this.#drawMarks(drawn)] },
      },
      [[], ...series.map(() => [])],
      plot,
    );
    new ResizeObserver(() => {
      const { clientWidth: width, clientHeight: height } = plot;
      if (width > 0 && height > 0) this.#plot.setSize({ width, height });
    }).observe(plot);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#plot.redraw());
  }

  /** @param description of what the lines show, for those who do not see them @param xRange ends of the axis; by default those of x */
  show(
    x: readonly number[],
    ys: readonly (readonly (number | null)[])[],
    description: string,
    xRange?: readonly [number, number],
    marks: readonly Mark[] = [],
  ): void {
    this.#marks = marks;
    this.#xRange = xRange ?? [x[0] ?? 1, x.at(-1) ?? 10];
    if (this.#xRange[0] === this.#xRange[1]) this.#xRange = [this.#xRange[0] / 2, this.#xRange[1] * 2];
    this.#plot.setData([[...x], ...ys.map((values) => [...values])]);
    this.#frame.querySelector(".plot")?.setAttribute("aria-label", description);
  }

  #drawMarks({ ctx, bbox, valToPos }: uPlot): void {
    const { left, top, width, height } = bbox;
    const pixels = devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = getComputedStyle(this.#frame).getPropertyValue("--quiet");
    ctx.lineWidth = pixels;
    ctx.setLineDash([3 * pixels, 3 * pixels]);
    ctx.font = `${12 * pixels}px system-ui, sans-serif`;
    for (const { x, label } of this.#marks) {
      const at = valToPos(x, "x", true);
      ctx.beginPath();
      ctx.moveTo(at, top);
      ctx.lineTo(at, top + height);
      ctx.stroke();
      // On the side that has room for it.
      const before = at > left + width / 2;
      ctx.textAlign = before ? "right" : "left";
      ctx.fillText(label, at + (before ? -6 : 6) * pixels, top + 12 * pixels);
    }
    ctx.restore();
  }

  #readOut(): void {
    const { idx } = this.#plot.cursor;
    const { x, y } = this.#options;
    const at = idx === null || idx === undefined ? undefined : this.#plot.data[0][idx];
    this.#at.textContent = at === undefined ? "" : `at ${x.format(at)}`;
    this.#values.forEach((value, i) => {
      const found = idx === null || idx === undefined ? undefined : this.#plot.data[i + 1]?.[idx];
      value.textContent = typeof found === "number" ? y.format(found) : "";
    });
  }
}

const all = (_plot: uPlot, splits: number[]) => splits;

/** Of a decade's nine ticks the first counts, and those at 2 and 5 where the decades are few. */
function roundOnes(_plot: uPlot, splits: number[]): (number | null)[] {
  const digits = splits.length < 22 ? [1, 2, 5] : [1];
  return splits.map((value) => {
    const digit = value / 10 ** Math.floor(Math.log10(value) + 1e-9);
    return digits.some((round) => Math.abs(digit - round) < 1e-6) ? value : null;
  });
}

/** The values and some room around them. */
function padded(min: number | null, max: number | null): uPlot.Range.MinMax {
  if (min === null || max === null) return [0, 1];
  const room = 0.08 * (max - min) || 0.1;
  return [min - room, max + room];
}

/** Whole powers of ten around the values, two at least. */
function decades(min: number | null, max: number | null): uPlot.Range.MinMax {
  if (min === null || max === null || !(min > 0)) return [1, 10];
  const low = Math.floor(Math.log10(min) + 1e-9);
  const high = Math.ceil(Math.log10(max) - 1e-9);
  return [10 ** low, 10 ** Math.max(high, low + 1)];
}
