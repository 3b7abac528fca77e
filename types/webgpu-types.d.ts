// Stands in for @webgpu/types, which the package `webgpu` imports: beside the WebGPU types of TypeScript's own lib.dom they are duplicates.
export {};
