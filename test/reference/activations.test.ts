import { describe, expect, test } from "vitest";
import { activate, activationFunction, erf, erfc, gelu, sigmoid, silu, tanh, x_erf } from "../../src/reference/activations.ts";

const relative = (a: number, b: number) => Math.abs(a - b) / Math.abs(b);

// x, erf(x), erfc(x), erfc(-x) from 60-digit arithmetic, at the exact double x; the pieces of the approximation meet at 0.46875 and 4
const ERF: [number, number, number, number][] = [
  [1e-300, 1.1283791670955126e-300, 1, 1],
  [1e-8, 1.1283791670955126e-8, 0.9999999887162083, 1.0000000112837917],
  [0.01, 0.011283415555849618, 0.9887165844441504, 1.0112834155558497],
  [0.25, 0.27632639016823696, 0.723673609831763, 1.276326390168237],
  [0.46875, 0.492613473217938, 0.507386526782062, 1.492613473217938],
  [0.4687500000000001, 0.4926134732179381, 0.5073865267820619, 1.4926134732179381],
  [0.5, 0.5204998778130465, 0.4795001221869535, 1.5204998778130465],
  [1, 0.8427007929497149, 0.15729920705028513, 1.8427007929497148],
  [1.5, 0.9661051464753108, 0.033894853524689274, 1.9661051464753108],
  [2, 0.9953222650189527, 0.004677734981047266, 1.9953222650189528],
  [2.5, 0.999593047982555, 0.000406952017444959, 1.999593047982555],
  [2.8170263139354867, 0.9999321999737277, 0.00006780002627233918, 1.9999321999737276],
  [3, 0.9999779095030014, 0.00002209049699858544, 1.9999779095030015],
  [3.99, 0.9999999832607886, 1.6739211364520814e-8, 1.9999999832607886],
  [4, 0.9999999845827421, 1.541725790028002e-8, 1.999999984582742],
  [4.000000000000001, 0.9999999845827421, 1.5417257900279907e-8, 1.999999984582742],
  [5, 0.9999999999984626, 1.537459794428035e-12, 1.9999999999984626],
  [6, 1, 2.1519736712498913e-17, 2],
  [10, 1, 2.088487583762545e-45, 2],
  [20, 1, 5.395865611607901e-176, 2],
  [26, 1, 5.663192408856143e-296, 2],
];

// z, z·Φ(z), likewise
const GELU: [number, number][] = [
  [-37.5, -1.727007378593233e-306],
  [-20, -5.507248237212466e-88],
  [-10, -7.619853024160526e-23],
  [-5, -0.0000014332578593959697],
  [-3, -0.004049694094890284],
  [-1, -0.15865525393145705],
  [-0.5, -0.15426876936299344],
  [-0.001, -0.000499601057786089],
  [0.001, 0.000500398942213911],
  [0.5, 0.34573123063700656],
  [1, 0.8413447460685429],
  [3, 2.99595030590511],
  [10, 10],
];

describe("activations", () => {
  test("erf and erfc to 1e-15 relative", () => {
    for (const [x, value, complement, negative] of ERF) {
      expect(relative(erf(x), value), `erf(${x})`).toBeLessThan(1e-15);
      expect(relative(erfc(x), complement), `erfc(${x})`).toBeLessThan(1e-15);
      expect(relative(erfc(-x), negative), `erfc(${-x})`).toBeLessThan(1e-15);
      expect(erf(-x)).toBe(-erf(x));
    }
  });

  test("erf agrees with its Taylor series over |x| <= 3", () => {
    for (let x = -3; x <= 3; x += 1 / 64) {
      // Σ (-1)^n x^(2n+1) / (n! (2n+1)); cancellation grows to e^(x²), so 1e-15 becomes 1e-11 at 3
      let term = x;
      let sum = x;
      for (let n = 1; n < 80; n++) {
        term *= (-x * x) / n;
        sum += term / (2 * n + 1);
      }
      expect(Math.abs(erf(x) - (2 / Math.sqrt(Math.PI)) * sum), `erf(${x})`).toBeLessThan(1e-15 * (1 + Math.exp(x * x)));
    }
  });

  test("gelu is exact in the tails too", () => {
    // rounding z/√2 alone moves Φ(z) by z²·2⁻⁵³ relative
    for (const [z, value] of GELU) expect(relative(gelu(z), value), `gelu(${z})`).toBeLessThan(4e-16 * Math.max(2, z * z));
  });

  test("values at 0, at infinity, and NaN", () => {
    expect([erf(0), erf(Infinity), erf(-Infinity)]).toEqual([0, 1, -1]);
    expect([erfc(0), erfc(Infinity), erfc(-Infinity)]).toEqual([1, 0, 2]);
    expect([gelu(0), gelu(Infinity), Math.abs(gelu(-Infinity))]).toEqual([0, Infinity, 0]);
    expect([x_erf(0), x_erf(Infinity), x_erf(-Infinity)]).toEqual([0, Infinity, Infinity]);
    expect([sigmoid(0), sigmoid(Infinity), sigmoid(-Infinity), sigmoid(-800)]).toEqual([0.5, 1, 0, 0]);
    expect([silu(0), silu(Infinity), Math.abs(silu(-Infinity))]).toEqual([0, Infinity, 0]);
    expect([tanh(0), tanh(1000), tanh(-1000)]).toEqual([0, 1, -1]);
    for (const f of [erf, erfc, gelu, x_erf, sigmoid, silu, tanh]) expect(f(NaN), f.name).toBeNaN();
  });

  test("activate calls the function of that name", () => {
    expect(activate("gelu", 0.7)).toBe(gelu(0.7));
    expect(activate("tanh", 0.7)).toBe(Math.tanh(0.7));
    expect(activate("identity", 0.7)).toBe(0.7);
    expect(activate("x_erf", -0.7)).toBeCloseTo(0.7 * erf(0.7), 15);
    expect(activate("silu", 0.7)).toBeCloseTo(0.7 / (1 + Math.exp(-0.7)), 15);
    expect(activationFunction()).toBe(gelu);
  });
});
