/** Who takes part: a bundle each, contenders/<name>.ts. `npm` is the library that it measures. @type {Readonly<Record<string, { title: string, npm?: string }>>} */
export const CONTENDERS = {
  homm: { title: "homm-webgpu" },
  jax: { title: "jax-js, jit", npm: "@jax-js/jax" },
  tfjs: { title: "TensorFlow.js, WebGPU backend", npm: "@tensorflow/tfjs-backend-webgpu" },
  onnx: { title: "onnxruntime-web, WebGPU provider", npm: "onnxruntime-web" },
  rivals: { title: "homm-webgpu/baselines, homm-webgpu/pom: softmax and linear attention, the polynomial mixer" },
  plain: { title: "plain WGSL: the ceilings" },
};
