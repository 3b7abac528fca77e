// The part of @jax-js/jax that the bench uses, so that the repository's types check without the peers being installed.
export interface Array {
  /** The same array with one more reference. */
  readonly ref: Array;
  add(other: Array | number): Array;
  mul(other: Array | number): Array;
  div(other: Array | number): Array;
  reshape(shape: readonly number[]): Array;
  data(): Promise<ArrayLike<number>>;
  dispose(): void;
}

type Tree = Array | readonly Tree[] | { readonly [key: string]: Tree };

export declare function init(...devices: string[]): Promise<string[]>;
export declare function defaultDevice(device: string): string;
export declare function jit<A extends Tree[], R extends Tree>(f: (...args: A) => R): (...args: A) => R;
export declare function blockUntilReady<T extends Tree>(tree: T): Promise<T>;

export declare const tree: { ref<T extends Tree>(tree: T): T };

export declare const numpy: {
  array(data: Float32Array<ArrayBuffer>, options?: { shape?: number[] }): Array;
  zeros(shape: number[]): Array;
  matmul(a: Array, b: Array): Array;
  split(a: Array, sections: number, axis: number): Array[];
  concatenate(arrays: Array[], axis: number): Array;
  mean(a: Array, axis: number, options?: { keepdims?: boolean }): Array;
  sum(a: Array, axis: number, options?: { keepdims?: boolean }): Array;
  cumsum(a: Array, axis: number): Array;
};

export declare const nn: {
  gelu(x: Array, options?: { approximate?: boolean }): Array;
  sigmoid(x: Array): Array;
  dotProductAttention(query: Array, key: Array, value: Array, options?: { isCausal?: boolean }): Array;
};
