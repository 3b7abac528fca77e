// A renderer with a device, buffers and an encoder of its own. A layer runs inside its frame: what it puts out is the vertex buffer of the draw call that follows.
import { HomLayer, requestGpu, Tensor } from "homm-webgpu";
import code from "./points.wgsl?raw";

const canvas = document.querySelector("canvas") as HTMLCanvasElement;
const status = document.querySelector("#status") as HTMLElement;
const side = 48;
const n = side * side;
const dim = 4;
const movers = 3;

async function start(): Promise<void> {
  const adapter = await navigator.gpu?.requestAdapter();
  const device = await adapter?.requestDevice();
  const context = canvas.getContext("webgpu") as GPUCanvasContext | null;
  if (!device || !context) throw new Error("This browser has no WebGPU here.");
  const format = navigator.gpu.getPreferredCanvasFormat();
  context.configure({ device, format });

  const module = device.createShaderModule({ code });
  const perPoint = (shaderLocation: number): GPUVertexBufferLayout => ({
    arrayStride: 4 * dim,
    stepMode: "instance",
    attributes: [{ shaderLocation, offset: 0, format: "float32x4" }],
  });
  const pipeline = device.createRenderPipeline({
    layout: "auto",
    vertex: { module, buffers: [perPoint(0), perPoint(1)] },
    fragment: { module, targets: [{ format }] },
    primitive: { topology: "triangle-strip" },
  });

  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.VERTEX | GPUBufferUsage.COPY_DST;
  const pointBuffer = (points: number) => device.createBuffer({ size: 4 * dim * points, usage });
  const [homes, moved, attractors] = [pointBuffer(n), pointBuffer(n), pointBuffer(movers)];
  const grid = Float32Array.from({ length: n * dim }, (_, i) => {
    const point = Math.floor(i / dim);
    const [x, y] = [(2 * (point % side)) / (side - 1) - 1, (2 * Math.floor(point / side)) / (side - 1) - 1];
    return [x, y, x * y, 1][i % dim] ?? 0;
  });
  device.queue.writeBuffer(homes, 0, grid);

  const gpu = await requestGpu({ device });
  const [order, orderExpand] = [2, 4];
  const M = order * orderExpand * dim;
  const waves = (count: number, scale: number) => Float32Array.from({ length: count }, (_, i) => scale * Math.sin(1 + 7.3 * i));
  const params = { "ho_proj.weight": waves(M * dim, 2), "se_proj.weight": waves(M * dim, 4), "ag_proj.weight": waves(dim * M, 1) };
  const layer = await HomLayer.create(gpu, { dim, order, orderExpand, activation: "tanh", bias: false }, params);
  const query = Tensor.wrap(gpu, homes, [1, n, dim]);
  const tokens = Tensor.wrap(gpu, attractors, [1, movers, dim]);
  const out = Tensor.wrap(gpu, moved, [1, n, dim]);

  function frame(time: number): void {
    if (!device || !context) return;
    const angles = Float32Array.from({ length: movers * dim }, (_, i) => Math.sin((time / 1000) * (1 + i / 5)));
    device.queue.writeBuffer(attractors, 0, angles);
    const encoder = device.createCommandEncoder();
    layer.encode(encoder, { query, context: tokens, out });
    const view = context.getCurrentTexture().createView();
    const pass = encoder.beginRenderPass({
      colorAttachments: [{ view, clearValue: [0.06, 0.08, 0.1, 1], loadOp: "clear", storeOp: "store" }],
    });
    pass.setPipeline(pipeline);
    pass.setVertexBuffer(0, homes);
    pass.setVertexBuffer(1, moved);
    pass.draw(4, n);
    pass.end();
    device.queue.submit([encoder.finish()]);
    running = requestAnimationFrame(frame);
  }
  let running = requestAnimationFrame(frame);
  device.lost.then(({ message }) => {
    cancelAnimationFrame(running);
    status.textContent = `The GPU is gone: ${message}`;
  });
}

start().catch((error: Error) => {
  status.textContent = error.message;
});
