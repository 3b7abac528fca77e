/** Numbers as a person reads them. */
export function grouped(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** Three significant digits. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return "–";
  if (value >= 1000) return grouped(value);
  return value.toLocaleString("en-US", { maximumSignificantDigits: 3 });
}

export function bytes(value: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  const power = value < 10_000 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(value) / 10));
  return `${power === 0 ? grouped(value) : short(value / 1024 ** power)} ${units[power]}`;
}

export function rate(perSecond: number, unit: string): string {
  const prefixes = ["", "k", "M", "G", "T"];
  const power = perSecond < 1000 ? 0 : Math.min(prefixes.length - 1, Math.floor(Math.log10(perSecond) / 3));
  return `${short(perSecond / 1000 ** power)} ${prefixes[power]}${unit}`;
}

export function milliseconds(ms: number): string {
  return ms < 1 ? `${short(ms * 1000)} µs` : ms < 1000 ? `${short(ms)} ms` : `${short(ms / 1000)} s`;
}
