/** What is drawn of a text's path, as numbers for the pipelines. */
import type { Atlas } from "./atlas.ts";

export type Colour = readonly [red: number, green: number, blue: number];

export interface Theme {
  readonly ground: Colour;
  readonly ink: Colour;
  readonly quiet: Colour;
  readonly early: Colour;
  readonly late: Colour;
  readonly mark: Colour;
}

export interface Path {
  /** `[tokens, 3]`, within a ball of radius 1 around the origin. */
  readonly coordinates: Float32Array;
  readonly shares: readonly number[];
  readonly characters: readonly string[];
}

/** Instances of the three pipelines, packed as their structs. */
export interface Picture {
  readonly lines: Float32Array<ArrayBuffer>;
  readonly points: Float32Array<ArrayBuffer>;
  readonly glyphs: Float32Array<ArrayBuffer>;
}

export const LINE_FLOATS = 16;
export const POINT_FLOATS = 12;
export const GLYPH_FLOATS = 16;

/** Tokens after the chosen one are so faint. */
const FAINT = 0.28;
const AXIS = 1.12;
const GLYPH_HEIGHT = 17;

/** A character as one can see it. */
export function visible(character: string): string {
  return character === "\n" ? "↵" : character === " " ? "·" : character;
}

export function axisName(axis: number, share: number): string {
  return `axis ${axis + 1}: ${percent(share)}`;
}

/** Small shares with one decimal. */
export function percent(share: number): string {
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

/** @param chosen the token up to which the path is drawn in full @param pixel canvas pixels to a pixel of the page */
export function pictureOf({ coordinates, shares, characters }: Path, chosen: number, theme: Theme, pixel: number, atlas: Atlas): Picture {
  const n = characters.length;
  const at = (i: number) => [coordinates[3 * i] ?? 0, coordinates[3 * i + 1] ?? 0, coordinates[3 * i + 2] ?? 0] as const;
  const colourOf = (i: number): Colour => blend(theme.early, theme.late, n > 1 ? i / (n - 1) : 0);
  const alphaOf = (i: number) => (i <= chosen ? 1 : FAINT);

  const lines: number[] = [];
  for (let axis = 0; axis < 3; axis++) {
    const end = [0, 0, 0];
    end[axis] = AXIS;
    lines.push(...end.map((value) => -value), pixel, ...end, 0, ...theme.quiet, 0.55, ...theme.quiet, 0.55);
  }
  for (let i = 0; i + 1 < n; i++) {
    const alpha = alphaOf(i + 1);
    lines.push(...at(i), 2 * pixel, ...at(i + 1), 0, ...colourOf(i), alpha, ...colourOf(i + 1), alpha);
  }

  const points: number[] = [];
  for (let i = 0; i < n; i++) {
    const isChosen = i === chosen;
    const colour = isChosen ? theme.mark : colourOf(i);
    points.push(...at(i), (isChosen ? 8 : 4) * pixel, ...colour, alphaOf(i), ...theme.ground, alphaOf(i));
  }

  const glyphs: number[] = [];
  const write = (text: string, place: readonly number[], offset: readonly [number, number], size: number, colour: Colour, alpha: number) => {
    let x = offset[0] * pixel;
    for (const character of text) {
      const found = atlas.places.get(character);
      if (!found) continue;
      const width = size * found.aspect * pixel;
      glyphs.push(...place, 0, x, offset[1] * pixel, width, size * pixel, ...found.source, ...colour, alpha);
      x += width;
    }
  };
  for (let axis = 0; axis < 3; axis++) {
    const end = [0, 0, 0];
    end[axis] = AXIS;
    write(axisName(axis, shares[axis] ?? 0), end, [6, -8], 15, theme.quiet, 1);
  }
  characters.forEach((character, i) => {
    const isChosen = i === chosen;
    write(visible(character), at(i), isChosen ? [9, -2] : [5, 0], isChosen ? 26 : GLYPH_HEIGHT, theme.ink, alphaOf(i));
  });
  return { lines: new Float32Array(lines), points: new Float32Array(points), glyphs: new Float32Array(glyphs) };
}

function blend(a: Colour, b: Colour, t: number): Colour {
  return [a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), a[2] + t * (b[2] - a[2])];
}
