/**
 * A strict JSON reader for headers that nobody vouches for. What `JSON.parse` hides matters here: a repeated key (it keeps the last), a number that
 * was not written as an integer or is beyond 2^53 (it rounds), and a key named `__proto__`. Objects come back as Maps, numbers as their own text.
 */
export type Json = null | boolean | string | JsonNumber | Json[] | Map<string, Json>;

/** A number as it was written. */
export class JsonNumber {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

/** Why the text is not acceptable; the caller says which file it is about. */
export class JsonProblem extends Error {}

const MAX_DEPTH = 16;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const SPACE = /[ \t\n\r]*/y;
const LONE_SURROGATE = /\p{Surrogate}/u;

/** False for a string with half a surrogate pair, which has no UTF-8 form. */
export const isWellFormed = (text: string): boolean => !LONE_SURROGATE.test(text);

export function parseJson(text: string): Json {
  let at = 0;

  function match(pattern: RegExp): string | undefined {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    if (found !== undefined) at += found.length;
    return found;
  }
  function fail(expected: string): never {
    const found = at < text.length ? JSON.stringify(text.slice(at, at + 12)) : "its end";
    throw new JsonProblem(`${expected} expected at character ${at}, found ${found}`);
  }
  function skipSpace(): void {
    match(SPACE);
  }
  function take(character: string): boolean {
    skipSpace();
    if (text[at] !== character) return false;
    at++;
    return true;
  }

  // By hand: on a string of megabytes (a vocabulary in the metadata) a pattern with a repeated choice overflows the engine's stack.
  function string(): string {
    const start = at;
    if (text[at] !== '"') fail("a string");
    let escaped = false;
    for (at++; text[at] !== '"'; at++) {
      if (text[at] === "\\") {
        escaped = true;
        at++;
      }
      if (at >= text.length) fail("the end of a string");
      if (text.charCodeAt(at) < 0x20) fail("no control character");
    }
    at++;
    let value = text.slice(start + 1, at - 1);
    if (escaped) {
      try {
        value = JSON.parse(text.slice(start, at)) as string;
      } catch {
        throw new JsonProblem(`the string at character ${start} has an escape that JSON does not know`);
      }
    }
    if (!isWellFormed(value)) throw new JsonProblem(`the string at character ${start} contains half a surrogate pair`);
    return value;
  }

  function object(depth: number): Map<string, Json> {
    const entries = new Map<string, Json>();
    if (take("}")) return entries;
    do {
      skipSpace();
      const start = at;
      const key = string();
      if (entries.has(key)) throw new JsonProblem(`the key ${JSON.stringify(key.slice(0, 200))} appears a second time at character ${start}`);
      if (!take(":")) fail('":"');
      entries.set(key, value(depth + 1));
    } while (take(","));
    if (!take("}")) fail('"," or "}"');
    return entries;
  }

  function array(depth: number): Json[] {
    const items: Json[] = [];
    if (take("]")) return items;
    do items.push(value(depth + 1));
    while (take(","));
    if (!take("]")) fail('"," or "]"');
    return items;
  }

  function value(depth: number): Json {
    if (depth > MAX_DEPTH) throw new JsonProblem(`values are nested more than ${MAX_DEPTH} deep at character ${at}`);
    if (take("{")) return object(depth);
    if (take("[")) return array(depth);
    if (text[at] === '"') return string();
    const number = match(NUMBER);
    if (number !== undefined) return new JsonNumber(number);
    for (const [word, meaning] of [
      ["true", true],
      ["false", false],
      ["null", null],
    ] as const) {
      if (text.startsWith(word, at)) {
        at += word.length;
        return meaning;
      }
    }
    return fail("a value");
  }

  const result = value(0);
  skipSpace();
  if (at < text.length) fail("the end");
  return result;
}

/** A value in an error message. */
export function describeJson(value: Json | undefined): string {
  if (value === undefined) return "nothing";
  if (value instanceof JsonNumber) return value.text.length > 40 ? `${value.text.slice(0, 40)}...` : value.text;
  if (value instanceof Map) return "an object";
  if (Array.isArray(value)) return `[${value.slice(0, 8).map(describeJson).join(", ")}${value.length > 8 ? ", ..." : ""}]`;
  return typeof value === "string" ? JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value) : String(value);
}
