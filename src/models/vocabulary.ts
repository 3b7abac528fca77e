import { rangeError, raw, typeError } from "../checks.ts";
import { WeightsError } from "../errors.ts";

/** Text to token ids and back, one id a character. */
export interface CharVocabulary {
  readonly size: number;
  /** @throws RangeError for a character that the vocabulary lacks */
  encode(text: string): Int32Array<ArrayBuffer>;
  decode(ids: Iterable<number>): string;
  /** Whether the vocabulary has every character of the text. */
  knows(text: string): boolean;
}

/**
 * A character vocabulary: token i is character i of `characters`, or of the JSON string under the metadata key `vocabulary`, as
 * character-level checkpoints carry it.
 */
export function charVocabulary(from: string | { readonly metadata: Readonly<Record<string, string>> }): CharVocabulary {
  const characters = [...(typeof from === "string" ? from : vocabularyOf(from.metadata))];
  const ids = new Map(characters.map((character, id) => [character, id]));
  if (ids.size !== characters.length)
    throw rangeError("charVocabulary", "characters", "be distinct", raw(`${characters.length - ids.size} repeated ones`));
  return {
    size: characters.length,
    encode: (text) =>
      Int32Array.from([...text], (character, i) => {
        const id = ids.get(character);
        if (id === undefined) throw rangeError("CharVocabulary.encode", `character ${i} of text`, "be in the vocabulary", character);
        return id;
      }),
    decode: (tokens) =>
      Array.from(tokens, (id) => {
        const character = characters[id];
        if (character === undefined) throw rangeError("CharVocabulary.decode", "id", `be from 0 to ${characters.length - 1}`, id);
        return character;
      }).join(""),
    knows: (text) => [...text].every((character) => ids.has(character)),
  };
}

function vocabularyOf(metadata: Readonly<Record<string, string>>): string {
  const text = metadata["vocabulary"];
  if (text === undefined) throw new WeightsError("charVocabulary: the metadata must have a vocabulary, got none; pass the characters as a string");
  const characters: unknown = JSON.parse(text);
  if (typeof characters !== "string") throw typeError("charVocabulary", "the metadata's vocabulary", "be a JSON string", characters);
  return characters;
}
