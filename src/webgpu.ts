// Programs whose `lib` lacks Symbol.dispose get it with our declarations.
/// <reference lib="esnext.disposable" preserve="true" />

/**
 * The WebGPU types of whoever compiles against this package: TypeScript 6+ ships them in `lib.dom`, older set-ups have
 * `@webgpu/types`, some have neither. Naming the globals in our declarations would break the last group under `skipLibCheck: false`.
 */
type Global<Name extends string> = typeof globalThis extends Record<Name, { prototype: infer T }> ? T : { readonly label: string };

export type GPUDevice = Global<"GPUDevice">;
export type GPUBuffer = Global<"GPUBuffer">;
export type GPUCommandEncoder = Global<"GPUCommandEncoder">;
export type GPUComputePassEncoder = Global<"GPUComputePassEncoder">;
export type GPUComputePipeline = Global<"GPUComputePipeline">;
export type GPUBindGroup = Global<"GPUBindGroup">;
export type GPUBindGroupLayout = Global<"GPUBindGroupLayout">;
export type GPUAdapter = Global<"GPUAdapter">;
export type GPUQuerySet = Global<"GPUQuerySet">;
