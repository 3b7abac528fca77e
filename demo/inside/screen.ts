/** Where a drawn picture becomes visible. */

export interface Screen {
  readonly format: GPUTextureFormat;
  /** What the next picture is drawn into. */
  target(width: number, height: number): GPUTexture;
  /** Records what has to follow the drawing; the answer, called after the submit, is there when the picture is shown. */
  present(encoder: GPUCommandEncoder, target: GPUTexture): () => Promise<void>;
}

/** @param copy whether to go through main memory instead of a canvas of the GPU's own */
export function screenFor(device: GPUDevice, canvas: OffscreenCanvas, copy: boolean): Screen {
  return copy ? new CopyScreen(device, canvas) : new CanvasScreen(device, canvas);
}

/** A canvas that the GPU draws into. */
class CanvasScreen implements Screen {
  readonly format: GPUTextureFormat;
  readonly #canvas: OffscreenCanvas;
  readonly #context: GPUCanvasContext;

  constructor(device: GPUDevice, canvas: OffscreenCanvas) {
    const context = canvas.getContext("webgpu") as GPUCanvasContext | null;
    if (!context) throw new Error("the browser draws no WebGPU outside of pages");
    this.format = navigator.gpu.getPreferredCanvasFormat();
    this.#canvas = canvas;
    this.#context = context;
    context.configure({ device, format: this.format, alphaMode: "opaque" });
  }

  target(width: number, height: number): GPUTexture {
    resize(this.#canvas, width, height);
    return this.#context.getCurrentTexture();
  }

  present(): () => Promise<void> {
    return async () => {};
  }
}

/** A picture that is read back and put on a plain canvas: for adapters on the processor, whose canvases not every browser can show. */
class CopyScreen implements Screen {
  readonly format = "rgba8unorm";
  readonly #device: GPUDevice;
  readonly #canvas: OffscreenCanvas;
  readonly #context: OffscreenCanvasRenderingContext2D;
  #target: GPUTexture | undefined;
  #staging: GPUBuffer | undefined;

  constructor(device: GPUDevice, canvas: OffscreenCanvas) {
    const context = canvas.getContext("2d");
    if (!context) throw new Error("the browser draws nothing outside of pages");
    this.#device = device;
    this.#canvas = canvas;
    this.#context = context;
  }

  target(width: number, height: number): GPUTexture {
    if (this.#target?.width === width && this.#target.height === height) return this.#target;
    this.#target?.destroy();
    this.#staging?.destroy();
    const usage = GPUTextureUsage.RENDER_ATTACHMENT | GPUTextureUsage.COPY_SRC;
    this.#target = this.#device.createTexture({ size: [width, height], format: this.format, usage });
    this.#staging = this.#device.createBuffer({ size: rowBytes(width) * height, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
    return this.#target;
  }

  present(encoder: GPUCommandEncoder, target: GPUTexture): () => Promise<void> {
    const staging = this.#staging;
    if (!staging) throw new Error("there is nothing to copy into");
    const { width, height } = target;
    encoder.copyTextureToBuffer({ texture: target }, { buffer: staging, bytesPerRow: rowBytes(width) }, [width, height]);
    return async () => {
      await staging.mapAsync(GPUMapMode.READ);
      const mapped = new Uint8Array(staging.getMappedRange());
      const pixels = new Uint8ClampedArray(width * height * 4);
      for (let y = 0; y < height; y++) pixels.set(mapped.subarray(y * rowBytes(width), y * rowBytes(width) + width * 4), y * width * 4);
      staging.unmap();
      resize(this.#canvas, width, height);
      this.#context.putImageData(new ImageData(pixels, width, height), 0, 0);
    };
  }
}

/** Rows of a copied texture begin at multiples of 256 bytes. */
function rowBytes(width: number): number {
  return Math.ceil((width * 4) / 256) * 256;
}

/** Setting a size empties a canvas, so only another one is set. */
function resize(canvas: OffscreenCanvas, width: number, height: number): void {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
}
