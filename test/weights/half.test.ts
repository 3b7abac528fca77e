import { describe, expect, it } from "vitest";
import { decodeBF16, decodeF16, encodeBF16, encodeF16 } from "../../src/half.ts";

const ALL = Uint16Array.from({ length: 65536 }, (_, i) => i);

/** The value of a small float by its definition, in float64 arithmetic and without any bit of the code under test. */
function definition(bits: number, exponentBits: number, fractionBits: number): number {
  const sign = bits >= 2 ** (exponentBits + fractionBits) ? -1 : 1;
  const exponent = Math.floor(bits / 2 ** fractionBits) % 2 ** exponentBits;
  const fraction = bits % 2 ** fractionBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === 2 ** exponentBits - 1) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** (1 - bias - fractionBits);
  return sign * (1 + fraction / 2 ** fractionBits) * 2 ** (exponent - bias);
}

const float = (word: number): number => new Float32Array(Uint32Array.of(word).buffer)[0]!;
const words = (values: Float32Array): Uint32Array => new Uint32Array(values.buffer);

describe.each([
  { name: "F16", decode: decodeF16, encode: encodeF16, exponentBits: 5, fractionBits: 10, nans: 2046, quiet: 0x200 },
  { name: "BF16", decode: decodeBF16, encode: encodeBF16, exponentBits: 8, fractionBits: 7, nans: 254, quiet: 0x40 },
])("$name", ({ decode, encode, exponentBits, fractionBits, nans, quiet }) => {
  const decoded = decode(ALL);

  it("decodes all 65536 patterns to the value of their definition, the sign of zero included", () => {
    const wrong = ALL.filter((bits) => !Object.is(decoded[bits], definition(bits, exponentBits, fractionBits)));
    expect([...wrong]).toEqual([]);
    expect(ALL.filter((bits) => Number.isNaN(decoded[bits]))).toHaveLength(nans);
  });

  it("keeps sign and payload of every NaN", () => {
    const w = words(decoded);
    for (const bits of ALL) {
      if (!Number.isNaN(decoded[bits])) continue;
      expect(w[bits]! >>> 31).toBe(bits >>> 15);
      expect((w[bits]! & 0x7fffff) >>> (23 - fractionBits)).toBe(bits & (2 ** fractionBits - 1));
    }
  });

  it("encodes every decoded value back to its own pattern; a signalling NaN becomes quiet", () => {
    const encoded = encode(decoded);
    const wrong = ALL.filter((bits) => encoded[bits] !== (Number.isNaN(decoded[bits]) ? bits | quiet : bits));
    expect([...wrong]).toEqual([]);
  });

  it("rounds to nearest, and ties to even, between every two neighbours", () => {
    const infinity = (2 ** exponentBits - 1) * 2 ** fractionBits;
    // The last gap, from the largest finite value to infinity, is as wide as the one before it.
    for (let bits = 0; bits < infinity; bits++) {
      const low = definition(bits, exponentBits, fractionBits);
      const high =
        bits + 1 < infinity ? definition(bits + 1, exponentBits, fractionBits) : 2 * low - definition(bits - 1, exponentBits, fractionBits);
      // low and high have at most 11 significant bits, so the middle is exact in binary32 (above its subnormals' last place)
      const middle = Math.fround((low + high) / 2);
      if (middle !== (low + high) / 2) continue;
      const [word] = words(Float32Array.of(middle)) as unknown as [number];
      const values = Float32Array.of(middle, float(word - 1), float(word + 1), -middle);
      const even = bits % 2 === 0 ? bits : bits + 1;
      expect([...encode(values)], `around ${middle}`).toEqual([even, bits, bits + 1, even | 0x8000]);
    }
  });

  it("reads and writes nothing outside the given part of a buffer", () => {
    const values = new Float32Array([9, 1, -2, 9]).subarray(1, 3);
    expect(decode(encode(values))).toEqual(Float32Array.of(1, -2));
    const bits = Uint16Array.from([1, ...encode(values), 1]).subarray(1, 3);
    expect(decode(bits)).toEqual(Float32Array.of(1, -2));
    expect(decode(new Uint16Array(0))).toEqual(new Float32Array(0));
  });
});

describe("known roundings", () => {
  it.each([
    ["1", 1, 0x3c00, 0x3f80],
    ["-0", -0, 0x8000, 0x8000],
    ["65504, the largest F16", 65504, 0x7bff, 0x4780],
    ["65519.996, just below the tie to infinity", float(0x477fefff), 0x7bff, 0x4780],
    ["65520, the tie to infinity", 65520, 0x7c00, 0x4780],
    ["2^-14, the smallest normal F16", 2 ** -14, 0x0400, 0x3880],
    ["just under 2^-14, which rounds up to normal", float(0x387fffff), 0x0400, 0x3880],
    ["2^-24, the smallest F16", 2 ** -24, 0x0001, 0x3380],
    ["2^-25, a tie to zero", 2 ** -25, 0x0000, 0x3300],
    ["just over 2^-25", float(0x33000001), 0x0001, 0x3300],
    ["-2^-26", -(2 ** -26), 0x8000, 0xb280],
    ["the smallest binary32", float(1), 0x0000, 0x0000],
    ["the largest binary32", float(0x7f7fffff), 0x7c00, 0x7f80],
    ["3.3895314e38, the largest BF16", float(0x7f7f0000), 0x7c00, 0x7f7f],
    ["-Infinity", Number.NEGATIVE_INFINITY, 0xfc00, 0xff80],
    ["1 + 2^-11, a tie to even in F16", 1 + 2 ** -11, 0x3c00, 0x3f80],
    ["1 + 3 * 2^-11, the other tie", 1 + 3 * 2 ** -11, 0x3c02, 0x3f80],
    ["1 + 2^-8, a tie to even in BF16", 1 + 2 ** -8, 0x3c04, 0x3f80],
    ["1 + 3 * 2^-8, the other tie", 1 + 3 * 2 ** -8, 0x3c0c, 0x3f82],
  ])("%s", (_name, value, f16, bf16) => {
    expect(encodeF16(Float32Array.of(value))[0]).toBe(f16);
    expect(encodeBF16(Float32Array.of(value))[0]).toBe(bf16);
  });

  it("no NaN becomes a number, whatever its payload", () => {
    for (const word of [0x7f800001, 0x7fffffff, 0xff800001, 0x7fc00000, 0x7f801fff]) {
      const nan = new Float32Array(Uint32Array.of(word).buffer);
      expect(decodeF16(encodeF16(nan))[0]).toBeNaN();
      expect(decodeBF16(encodeBF16(nan))[0]).toBeNaN();
      expect(encodeF16(nan)[0]! >>> 15).toBe(word >>> 31);
      expect(encodeBF16(nan)[0]! >>> 15).toBe(word >>> 31);
    }
  });
});
