// The part of @tensorflow/tfjs-core that the bench uses, so that the repository's types check without the peers being installed.
export interface Tensor {
  readonly shape: number[];
  data(): Promise<ArrayLike<number>>;
  dispose(): void;
}
export interface Tensor1D extends Tensor {
  readonly rank: 1;
}
export interface Tensor2D extends Tensor {
  readonly rank: 2;
}
export interface Tensor3D extends Tensor {
  readonly rank: 3;
}

export declare const version_core: string;
export declare function findBackendFactory(name: string): (() => unknown) | undefined | null;
export declare function setBackend(name: string): Promise<boolean>;
export declare function ready(): Promise<void>;
export declare function backend(): unknown;
export declare function tidy<T extends Tensor>(f: () => T): T;
export declare function keep<T extends Tensor>(tensor: T): T;
export declare function tensor1d(values: Float32Array): Tensor1D;
export declare function tensor2d(values: Float32Array, shape: [number, number]): Tensor2D;
export declare function tensor3d(values: Float32Array, shape: [number, number, number]): Tensor3D;
export declare function zeros(shape: number[]): Tensor;
export declare function ones(shape: number[]): Tensor;
export declare function add(a: Tensor, b: Tensor | number): Tensor;
export declare function sub(a: Tensor | number, b: Tensor): Tensor;
export declare function mul(a: Tensor, b: Tensor | number): Tensor;
export declare function div(a: Tensor, b: Tensor): Tensor;
export declare function erf(x: Tensor): Tensor;
export declare function softmax(x: Tensor): Tensor;
export declare function mean(x: Tensor, axis: number, keepDims: boolean): Tensor;
export declare function sum(x: Tensor, axis: number, keepDims: boolean): Tensor;
export declare function cumsum(x: Tensor, axis: number): Tensor;
export declare function split(x: Tensor, sections: number, axis: number): Tensor[];
export declare function concat(tensors: Tensor[], axis: number): Tensor;
export declare function reshape(x: Tensor, shape: number[]): Tensor;
export declare function transpose(x: Tensor, order: number[]): Tensor;
export declare function matMul(a: Tensor, b: Tensor, transposeA?: boolean, transposeB?: boolean): Tensor;
export declare const fused: {
  matMul(options: { a: Tensor2D; b: Tensor2D; bias?: Tensor; activation?: "linear" | "sigmoid" }): Tensor2D;
};
export declare const linalg: { bandPart(x: Tensor, below: number, above: number): Tensor };
