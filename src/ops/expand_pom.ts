import polynomialExpansion from "../../shaders/shared/expand_polynomial.wgsl?raw";
import rotaryExpansion from "../../shaders/shared/expand_rotary.wgsl?raw";
import polynomial from "../../shaders/shared/polynomial.wgsl?raw";
import polynomial1x4 from "../../shaders/shared/polynomial_1x4.wgsl?raw";
import polynomial8x4 from "../../shaders/shared/polynomial_8x4.wgsl?raw";
import polynomial16x8 from "../../shaders/shared/polynomial_16x8.wgsl?raw";
import polynomialQuad from "../../shaders/shared/polynomial_quad.wgsl?raw";
import type { Expand } from "../runtime/kernel.ts";

const withTiles = (name: string, source: string): Expand => {
  const large = [source, polynomial, polynomial16x8, polynomialQuad];
  return {
    name,
    files: {
      "1x4": [source, polynomial, polynomial1x4],
      "8x4": [source, polynomial, polynomial8x4, polynomialQuad],
      "16x8": large,
      "16x8_quads": large,
    },
  };
};

/** PoM's moments: a polynomial of each projection. */
export const POLYNOMIAL: Expand = /* @__PURE__ */ withTiles("polynomial", polynomialExpansion);

/** The same, turned by the token's position. */
export const ROTARY: Expand = /* @__PURE__ */ withTiles("rotary", rotaryExpansion);
