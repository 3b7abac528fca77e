/** Draws a picture on the device that computed it. */
import type { Atlas } from "./atlas.ts";
import { type Orbit, viewProjection } from "./camera.ts";
import glyphsSource from "./glyphs.wgsl?raw";
import linesSource from "./lines.wgsl?raw";
import { type Colour, GLYPH_FLOATS, LINE_FLOATS, type Picture, POINT_FLOATS } from "./picture.ts";
import pointsSource from "./points.wgsl?raw";
import sceneSource from "./scene.wgsl?raw";
import type { Screen } from "./screen.ts";

const SAMPLES = 4;
const DEPTH = "depth24plus";
const CORNERS = 6;
const SCENE_BYTES = 80;

type Part = keyof Picture;
const PARTS: readonly Part[] = ["lines", "points", "glyphs"];
const FLOATS: Readonly<Record<Part, number>> = { lines: LINE_FLOATS, points: POINT_FLOATS, glyphs: GLYPH_FLOATS };
const SOURCES: Readonly<Record<Part, string>> = { lines: linesSource, points: pointsSource, glyphs: glyphsSource };

export class Renderer {
  readonly #device: GPUDevice;
  readonly #screen: Screen;
  readonly #scene: GPUBuffer;
  readonly #pipelines: Readonly<Record<Part, GPURenderPipeline>>;
  readonly #sampler: GPUSampler;
  #texture: GPUTexture | undefined;
  #instances = new Map<Part, { buffer: GPUBuffer; group: GPUBindGroup; count: number }>();
  #targets: { colour: GPUTexture; depth: GPUTexture } | undefined;

  private constructor(device: GPUDevice, screen: Screen, pipelines: Readonly<Record<Part, GPURenderPipeline>>) {
    this.#device = device;
    this.#screen = screen;
    this.#pipelines = pipelines;
    this.#scene = device.createBuffer({ size: SCENE_BYTES, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
    this.#sampler = device.createSampler({ minFilter: "linear", magFilter: "linear" });
  }

  static async create(device: GPUDevice, screen: Screen): Promise<Renderer> {
    const made = await Promise.all(PARTS.map(async (part) => [part, await pipelineFor(device, part, screen.format)] as const));
    return new Renderer(device, screen, Object.fromEntries(made) as Record<Part, GPURenderPipeline>);
  }

  setAtlas({ image }: Atlas): void {
    this.#texture?.destroy();
    const usage = GPUTextureUsage.TEXTURE_BINDING | GPUTextureUsage.COPY_DST | GPUTextureUsage.RENDER_ATTACHMENT;
    const size = [image.width, image.height];
    this.#texture = this.#device.createTexture({ size, format: "rgba8unorm", usage });
    this.#device.queue.copyExternalImageToTexture({ source: image }, { texture: this.#texture, premultipliedAlpha: true }, size);
  }

  /** Uploads what is to be drawn from now on; an atlas comes first. */
  setPicture(picture: Picture): void {
    const device = this.#device;
    for (const part of PARTS) {
      const data = picture[part];
      const count = data.length / FLOATS[part];
      let held = this.#instances.get(part);
      // The texture may be another one.
      const size = Math.max(held?.buffer.size ?? 0, data.byteLength, 16);
      if (!held || held.buffer.size < size || part === "glyphs") {
        held?.buffer.destroy();
        const buffer = device.createBuffer({ size, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST });
        const entries: GPUBindGroupEntry[] = [
          { binding: 0, resource: { buffer: this.#scene } },
          { binding: 1, resource: { buffer } },
        ];
        if (part === "glyphs" && this.#texture) {
          entries.push({ binding: 2, resource: this.#texture.createView() }, { binding: 3, resource: this.#sampler });
        }
        held = { buffer, group: device.createBindGroup({ layout: this.#pipelines[part].getBindGroupLayout(0), entries }), count };
      }
      held.count = count;
      this.#instances.set(part, held);
      device.queue.writeBuffer(held.buffer, 0, data);
    }
  }

  /** @returns when the picture is to be seen */
  draw(orbit: Orbit, ground: Colour, width: number, height: number): Promise<void> {
    const device = this.#device;
    const scene = new Float32Array(SCENE_BYTES / 4);
    scene.set(viewProjection(orbit, width / height));
    scene.set([width, height], 16);
    device.queue.writeBuffer(this.#scene, 0, scene);
    const { colour, depth } = this.#targetsOf(width, height);
    const target = this.#screen.target(width, height);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginRenderPass({
      colorAttachments: [
        {
          view: colour.createView(),
          resolveTarget: target.createView(),
          clearValue: [...ground, 1],
          loadOp: "clear",
          storeOp: "discard",
        },
      ],
      depthStencilAttachment: { view: depth.createView(), depthClearValue: 1, depthLoadOp: "clear", depthStoreOp: "discard" },
    });
    for (const part of PARTS) {
      const held = this.#instances.get(part);
      if (!held || held.count === 0) continue;
      pass.setPipeline(this.#pipelines[part]);
      pass.setBindGroup(0, held.group);
      pass.draw(CORNERS, held.count);
    }
    pass.end();
    const shown = this.#screen.present(encoder, target);
    device.queue.submit([encoder.finish()]);
    return shown();
  }

  #targetsOf(width: number, height: number): { colour: GPUTexture; depth: GPUTexture } {
    if (this.#targets?.colour.width === width && this.#targets.colour.height === height) return this.#targets;
    this.#targets?.colour.destroy();
    this.#targets?.depth.destroy();
    const target = (format: GPUTextureFormat) =>
      this.#device.createTexture({ size: [width, height], format, sampleCount: SAMPLES, usage: GPUTextureUsage.RENDER_ATTACHMENT });
    this.#targets = { colour: target(this.#screen.format), depth: target(DEPTH) };
    return this.#targets;
  }
}

function pipelineFor(device: GPUDevice, part: Part, format: GPUTextureFormat): Promise<GPURenderPipeline> {
  const module = device.createShaderModule({ label: `inside.${part}`, code: `${SOURCES[part]}\n${sceneSource}` });
  const over: GPUBlendComponent = { srcFactor: "one", dstFactor: "one-minus-src-alpha" };
  return device.createRenderPipelineAsync({
    label: `inside.${part}`,
    layout: "auto",
    vertex: { module },
    fragment: { module, targets: [{ format, blend: { color: over, alpha: over } }] },
    // Characters do not hide what is behind their boxes.
    depthStencil: { format: DEPTH, depthCompare: "less-equal", depthWriteEnabled: part === "points" },
    multisample: { count: SAMPLES },
  });
}
