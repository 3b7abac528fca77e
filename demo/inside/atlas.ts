/** Characters as pictures side by side. */

export interface GlyphPlace {
  /** In the texture, from 0 to 1. */
  readonly source: readonly [x: number, y: number, width: number, height: number];
  /** Width to height of the box. */
  readonly aspect: number;
}

export interface Atlas {
  readonly image: OffscreenCanvas;
  readonly places: ReadonlyMap<string, GlyphPlace>;
}

const HEIGHT = 64;
const FONT = "600 44px system-ui, sans-serif";
const COLUMNS = 16;
const WIDTH = 64;

/** Draws each character once, white on nothing. */
export function drawAtlas(characters: Iterable<string>): Atlas {
  const distinct = [...new Set(characters)];
  const rows = Math.max(1, Math.ceil(distinct.length / COLUMNS));
  const image = new OffscreenCanvas(COLUMNS * WIDTH, rows * HEIGHT);
  const context = image.getContext("2d");
  if (!context) throw new Error("the browser draws no text outside of pages");
  context.font = FONT;
  context.fillStyle = "#ffffff";
  context.textBaseline = "alphabetic";
  const places = new Map<string, GlyphPlace>();
  distinct.forEach((character, i) => {
    const x = (i % COLUMNS) * WIDTH;
    const y = Math.floor(i / COLUMNS) * HEIGHT;
    const width = Math.min(WIDTH - 2, Math.ceil(context.measureText(character).width));
    context.fillText(character, x + 1, y + 0.74 * HEIGHT, WIDTH - 2);
    places.set(character, {
      source: [x / image.width, y / image.height, (width + 2) / image.width, HEIGHT / image.height],
      aspect: (width + 2) / HEIGHT,
    });
  });
  return { image, places };
}
