// The WebGPU constants, which TypeScript 7.0's lib.dom leaves out; delete this file once it has them.

declare var GPUBufferUsage: {
  readonly MAP_READ: 0x0001;
  readonly MAP_WRITE: 0x0002;
  readonly COPY_SRC: 0x0004;
  readonly COPY_DST: 0x0008;
  readonly INDEX: 0x0010;
  readonly VERTEX: 0x0020;
  readonly UNIFORM: 0x0040;
  readonly STORAGE: 0x0080;
  readonly INDIRECT: 0x0100;
  readonly QUERY_RESOLVE: 0x0200;
};

declare var GPUMapMode: { readonly READ: 1; readonly WRITE: 2 };

declare var GPUShaderStage: { readonly VERTEX: 1; readonly FRAGMENT: 2; readonly COMPUTE: 4 };

declare var GPUTextureUsage: {
  readonly COPY_SRC: 0x01;
  readonly COPY_DST: 0x02;
  readonly TEXTURE_BINDING: 0x04;
  readonly STORAGE_BINDING: 0x08;
  readonly RENDER_ATTACHMENT: 0x10;
};
