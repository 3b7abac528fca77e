// The part of onnxruntime-web/webgpu that the bench uses, so that the repository's types check without the peers being installed.
export interface Tensor {
  readonly dims: readonly number[];
  readonly gpuBuffer: GPUBuffer;
  dispose(): void;
}

export declare const Tensor: {
  fromGpuBuffer(
    buffer: GPUBuffer,
    options: { dataType: "float32"; dims: readonly number[]; download?: () => Promise<Float32Array<ArrayBuffer>>; dispose?: () => void },
  ): Tensor;
};

export interface InferenceSession {
  run(inputs: Readonly<Record<string, Tensor>>, outputs: Readonly<Record<string, Tensor>>): Promise<Readonly<Record<string, Tensor>>>;
}

export declare const InferenceSession: {
  create(model: Uint8Array, options: { executionProviders: readonly string[]; preferredOutputLocation?: "gpu-buffer" }): Promise<InferenceSession>;
};

export declare const env: {
  logLevel: "error" | "warning";
  readonly versions: { readonly web?: string };
  readonly webgpu: { readonly device: Promise<GPUDevice> };
};
