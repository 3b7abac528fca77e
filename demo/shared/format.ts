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
  if (value < 10_000) return `${grouped(value)} bytes`;
  const units = ["kB", "MB", "GB", "TB"];
  const power = Math.min(units.length, Math.floor(Math.log10(value) / 3 + 1e-9));
  return `${short(value / 1000 ** power)} ${units[power - 1]}`;
}

export function rate(perSecond: number, unit: string): string {
  const prefixes = ["", "k", "M", "G", "T"];
  const power = perSecond < 1000 ? 0 : Math.min(prefixes.length - 1, Math.floor(Math.log10(perSecond) / 3));
  return `${short(perSecond / 1000 ** power)} ${prefixes[power]}${unit}`;
}

export function milliseconds(ms: number): string {
  return ms < 1 ? `${short(ms * 1000)} µs` : ms < 1000 ? `${short(ms)} ms` : `${short(ms / 1000)} s`;
}
