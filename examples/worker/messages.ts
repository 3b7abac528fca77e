/** What the page sends; arrays are handed over, not copied. */
export type Request = { readonly kind: "append" | "query"; readonly tokens: Float32Array<ArrayBuffer> };

/** What the worker answers. */
export type Answer =
  | { readonly kind: "ready"; readonly adapter: string }
  | { readonly kind: "seen"; readonly count: number }
  | { readonly kind: "read"; readonly values: Float32Array<ArrayBuffer> }
  | { readonly kind: "failed"; readonly message: string };

export const dim = 64;
