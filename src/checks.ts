/**
 * One wording for every argument error: `<function>: <argument> must <rule>, got <value>; <what to do>`.
 */
export function describe(value: unknown): string {
  if (value === null || value === undefined || typeof value === "number" || typeof value === "boolean" || typeof value === "bigint")
    return String(value);
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value);
  if (Array.isArray(value)) return `[${value.length > 8 ? `${value.slice(0, 8).join(", ")}, ...` : value.join(", ")}]`;
  if (ArrayBuffer.isView(value)) return `${value.constructor.name} of length ${(value as unknown as { length?: number }).length ?? value.byteLength}`;
  if (typeof value === "function") return `function ${value.name}`;
  return `${(value as object).constructor?.name ?? "object"}`;
}

function message(where: string, argument: string, rule: string, got: unknown, hint?: string): string {
  return `${where}: ${argument} must ${rule}, got ${typeof got === "string" && got.startsWith("\u0000") ? got.slice(1) : describe(got)}${hint ? `; ${hint}` : ""}`;
}

/** Marks text that is already a description, so that it is not quoted again. */
export const raw = (text: string): string => `\u0000${text}`;

export function typeError(where: string, argument: string, rule: string, got: unknown, hint?: string): TypeError {
  return new TypeError(message(where, argument, rule, got, hint));
}

export function rangeError(where: string, argument: string, rule: string, got: unknown, hint?: string): RangeError {
  return new RangeError(message(where, argument, rule, got, hint));
}

/** An integer in [min, max]. */
export function checkInteger(where: string, argument: string, value: unknown, min: number, max = Number.MAX_SAFE_INTEGER, hint?: string): number {
  if (typeof value !== "number") throw typeError(where, argument, "be a number", value, hint);
  if (!Number.isInteger(value) || value < min || value > max) {
    const rule = max === Number.MAX_SAFE_INTEGER ? `be an integer >= ${min}` : `be an integer from ${min} to ${max}`;
    throw rangeError(where, argument, rule, value, hint);
  }
  return value;
}

export function checkOneOf<T extends string>(where: string, argument: string, value: unknown, allowed: readonly T[]): T {
  if (typeof value !== "string" || !(allowed as readonly string[]).includes(value)) {
    throw typeError(where, argument, `be one of ${allowed.map((a) => JSON.stringify(a)).join(", ")}`, value);
  }
  return value as T;
}

export function checkObject(where: string, argument: string, value: unknown, known: readonly string[]): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw typeError(where, argument, "be an object", value);
  for (const key of Object.keys(value)) {
    if (!known.includes(key))
      throw typeError(where, argument, `have only the keys ${known.join(", ")}`, raw(`the unknown key ${JSON.stringify(key)}`));
  }
  return value as Record<string, unknown>;
}

declare const HOMM_MINIMAL: boolean | undefined;

/** False in the build of `homm-webgpu/minimal`. A constant of the build, so that the bundler drops what cannot be reached. */
export const FULL: boolean = typeof HOMM_MINIMAL === "undefined" || !HOMM_MINIMAL;

/** For what the minimal build leaves out. */
export function leftOut(where: string): TypeError {
  return typeError(where, "the import", "be of the whole package", raw("homm-webgpu/minimal"), 'import from "homm-webgpu"');
}
