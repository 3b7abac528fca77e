/**
 * The two 16-bit float formats of weight files, as raw bits in a Uint16Array (JavaScript has no portable typed array for either).
 * F16 is IEEE 754 binary16 (1 sign, 5 exponent, 10 fraction bits); BF16 is the upper half of a binary32 (1, 8, 7).
 */

/** Exact: every F16 value, subnormals included, is a binary32 value; NaN keeps its sign and payload. */
export function decodeF16(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const values = new Float32Array(bits.length);
  const words = new Uint32Array(values.buffer);
  for (let i = 0; i < bits.length; i++) {
    const half = bits[i]!;
    const sign = (half & 0x8000) << 16;
    const exponent = (half >> 10) & 0x1f;
    const fraction = half & 0x3ff;
    if (exponent === 0x1f) words[i] = sign | 0x7f800000 | (fraction << 13);
    else if (exponent !== 0) words[i] = sign | ((exponent + 112) << 23) | (fraction << 13);
    else values[i] = (sign < 0 ? -fraction : fraction) * 2 ** -24;
  }
  return values;
}

/** Exact: a BF16 is a binary32 whose lower 16 bits are 0. */
export function decodeBF16(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const values = new Float32Array(bits.length);
  const words = new Uint32Array(values.buffer);
  for (let i = 0; i < bits.length; i++) words[i] = bits[i]! << 16;
  return values;
}

/** A view of the values' bits: reading them as numbers could quieten a NaN. */
function wordsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

/** Rounds to nearest, ties to even. From 65520 on the result is infinite; a NaN keeps its sign and the upper payload bits, and becomes quiet. */
export function encodeF16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const bits = new Uint16Array(values.length);
  const words = wordsOf(values);
  for (let i = 0; i < bits.length; i++) {
    const word = words[i]!;
    const sign = (word >>> 16) & 0x8000;
    const magnitude = word & 0x7fffffff;
    if (magnitude > 0x7f800000) {
      bits[i] = sign | 0x7e00 | ((magnitude >>> 13) & 0x3ff);
    } else if (magnitude >= 0x477ff000) {
      bits[i] = sign | 0x7c00;
    } else if (magnitude >= 0x38800000) {
      // Normal: rebias the exponent by 127 - 15, then add just under half of the last place (exactly half when it is odd); a carry moves the exponent.
      const rebiased = magnitude - 0x38000000;
      bits[i] = sign | ((rebiased + 0xfff + ((rebiased >>> 13) & 1)) >>> 13);
    } else if (magnitude >= 0x33000000) {
      // Subnormal, from 2^-25 on: the value is significand * 2^(exponent - 150), the unit of the result is 2^-24.
      const significand = (magnitude & 0x7fffff) | 0x800000;
      const shift = 126 - (magnitude >>> 23);
      const rest = significand & ((1 << shift) - 1);
      const half = 1 << (shift - 1);
      const floor = significand >>> shift;
      bits[i] = sign | (floor + (rest > half || (rest === half && (floor & 1) === 1) ? 1 : 0));
    } else {
      bits[i] = sign;
    }
  }
  return bits;
}

/** Rounds to nearest, ties to even. Past the largest finite BF16 the result is infinite; a NaN keeps its sign and the upper payload bits, and becomes quiet. */
export function encodeBF16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const bits = new Uint16Array(values.length);
  const words = wordsOf(values);
  for (let i = 0; i < bits.length; i++) {
    const word = words[i]!;
    bits[i] = (word & 0x7fffffff) > 0x7f800000 ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return bits;
}
