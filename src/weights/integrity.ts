import { rangeError, raw, typeError } from "../checks.ts";

/** What a file's digest has to be. */
export interface Digest {
  readonly algorithm: keyof typeof BYTES;
  readonly bytes: Uint8Array;
}

const BYTES = { sha256: 32, sha384: 48, sha512: 64 } as const;

/** Parses `"sha256-…"` as in an HTML integrity attribute, in base64, or in the hexadecimal digits of `sha256sum` and of model hubs. */
export function parseIntegrity(where: string, text: unknown): Digest {
  if (typeof text !== "string") throw typeError(where, "integrity", "be a string", text);
  const [, name = "", value = ""] = /^(sha256|sha384|sha512)-(.*)$/.exec(text) ?? [];
  const algorithm = name as Digest["algorithm"];
  const bytes = decode(value, BYTES[algorithm]);
  if (!bytes) {
    throw rangeError(
      where,
      "integrity",
      'be one digest such as "sha256-…", "sha384-…" or "sha512-…", in base64 or hexadecimal digits',
      text,
      "`sha256sum FILE` prints one",
    );
  }
  // Browsers have no crypto.subtle on pages without https. What cannot be checked is not loaded.
  if (!globalThis.crypto?.subtle) {
    throw typeError(where, "integrity", "come where there is crypto.subtle", raw("a page without it"), "serve the page over https or from localhost");
  }
  return { algorithm, bytes };
}

function decode(text: string, length: number): Uint8Array | undefined {
  if (text.length === 2 * length && /^[0-9a-f]*$/i.test(text))
    return Uint8Array.from({ length }, (_, i) => Number.parseInt(text.slice(2 * i, 2 * i + 2), 16));
  try {
    const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    return binary.length === length ? Uint8Array.from(binary, (c) => c.charCodeAt(0)) : undefined;
  } catch {
    return undefined;
  }
}

/** The digest that the file has instead, or undefined where it is the right one. */
export async function otherDigest(file: Uint8Array<ArrayBuffer>, { algorithm, bytes }: Digest): Promise<string | undefined> {
  const name = algorithm.replace("sha", "SHA-");
  const found = new Uint8Array(await globalThis.crypto.subtle.digest(name, file));
  return found.every((byte, i) => byte === bytes[i]) ? undefined : writeDigest(algorithm, found);
}

export function writeDigest(algorithm: Digest["algorithm"], bytes: Uint8Array): string {
  return `${algorithm}-${btoa(String.fromCharCode(...bytes))}`;
}
