import { rangeError, raw, typeError } from "../checks.ts";
import { WeightsError } from "../errors.ts";

/** Text to token ids and back. */
export interface Vocabulary {
  readonly size: number;
  /** @throws RangeError for a character that the vocabulary lacks */
  encode(text: string): Int32Array<ArrayBuffer>;
  decode(ids: Iterable<number>): string;
  /** Decodes token by token: what is not yet a whole character comes with a later call. */
  decoder(): (ids: Iterable<number>) => string;
  /** Whether the vocabulary has every character of the text. */
  knows(text: string): boolean;
  /** What a checkpoint keeps of it, under the metadata key `vocabulary`. */
  readonly metadata: string;
}

/** One id a character. */
export interface CharVocabulary extends Vocabulary {
  /** Token i is character i. */
  readonly characters: readonly string[];
}

/**
 * A character vocabulary: token i is character i of `characters`, or of the JSON string under the metadata key `vocabulary`, as
 * character-level checkpoints carry it.
 */
export function charVocabulary(from: string | { readonly metadata: Readonly<Record<string, string>> }): CharVocabulary {
  const characters = [...(typeof from === "string" ? from : charactersOf(from.metadata))];
  const ids = new Map(characters.map((character, id) => [character, id]));
  if (ids.size !== characters.length)
    throw rangeError("charVocabulary", "characters", "be distinct", raw(`${characters.length - ids.size} repeated ones`));
  const decode = (tokens: Iterable<number>) =>
    Array.from(tokens, (id) => {
      const character = characters[id];
      if (character === undefined) throw rangeError("CharVocabulary.decode", "id", `be from 0 to ${characters.length - 1}`, id);
      return character;
    }).join("");
  return {
    size: characters.length,
    characters,
    metadata: JSON.stringify(characters.join("")),
    encode: (text) => {
      const tokens = new Int32Array(text.length);
      let count = 0;
      for (const character of text) {
        const id = ids.get(character);
        if (id === undefined) throw rangeError("CharVocabulary.encode", `character ${count} of text`, "be in the vocabulary", character);
        tokens[count++] = id;
      }
      return count === tokens.length ? tokens : tokens.slice(0, count);
    },
    decode,
    decoder: () => decode,
    knows: (text) => [...text].every((character) => ids.has(character)),
  };
}

/** The vocabulary of the characters of a text, in the order of their code points. */
export function charVocabularyOf(text: string): CharVocabulary {
  const characters = new Set<string>();
  for (const character of text) characters.add(character);
  return charVocabulary([...characters].sort((a, b) => (a.codePointAt(0) ?? 0) - (b.codePointAt(0) ?? 0)).join(""));
}

/** 256 tokens, the bytes of UTF-8: any text can be written with them. */
export function byteVocabulary(): Vocabulary {
  const bytesOf = (tokens: Iterable<number>) =>
    Uint8Array.from(tokens, (id) => {
      if (!Number.isInteger(id) || id < 0 || id > 255) throw rangeError("byteVocabulary().decode", "id", "be from 0 to 255", id);
      return id;
    });
  return {
    size: 256,
    metadata: JSON.stringify({ kind: "bytes" }),
    encode: (text) => Int32Array.from(new TextEncoder().encode(text)),
    decode: (tokens) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytesOf(tokens)),
    decoder: () => {
      const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
      return (tokens) => decoder.decode(bytesOf(tokens), { stream: true });
    },
    knows: () => true,
  };
}

/** The vocabulary that a checkpoint's metadata names, of characters or bytes. @throws WeightsError where it names none */
export function vocabularyOf(weights: { readonly metadata: Readonly<Record<string, string>> }): Vocabulary {
  const value: unknown = parse("vocabularyOf", weights.metadata);
  if (typeof value === "object" && value !== null && "kind" in value && value.kind === "bytes") return byteVocabulary();
  if (typeof value === "string") return charVocabulary(value);
  throw new WeightsError(`vocabularyOf: the metadata's vocabulary must be a JSON string of characters or {"kind":"bytes"}, got ${typeof value}`);
}

function charactersOf(metadata: Readonly<Record<string, string>>): string {
  const characters = parse("charVocabulary", metadata);
  if (typeof characters !== "string") throw typeError("charVocabulary", "the metadata's vocabulary", "be a JSON string", characters);
  return characters;
}

function parse(where: string, metadata: Readonly<Record<string, string>>): unknown {
  const text = metadata["vocabulary"];
  if (text === undefined) throw new WeightsError(`${where}: the metadata must have a vocabulary, got none; pass the characters as a string`);
  return JSON.parse(text);
}
