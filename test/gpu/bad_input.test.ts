import { afterAll, describe, expect, it } from "vitest";
import {
  type Gpu,
  GpuLostError,
  GpuOutOfMemoryError,
  GpuUnavailableError,
  type HomForwardOptions,
  HomLayer,
  requestGpu,
  Tensor,
  WeightsError,
} from "../../src/index.ts";
import { Hlm, HomBlock } from "../../src/models/index.ts";
import { failAllocations } from "../support/fail_allocations.ts";
import { createDevice, getDevice, takeUncapturedErrors } from "../support/gpu.ts";
import { expectSameBits, layerParams, normals32 } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";

const STORAGE = 0x80;
const COPY_SRC = 0x4;
const COPY_DST = 0x8;
/** The tile that compiles quickly everywhere. */
const QUICK = { tile: "8x4" } as const;

const device = await getDevice();
const gpu = await requestGpu({ device, tuning: QUICK });
const otherDevice = await createDevice();
const other = await requestGpu({ device: otherDevice, tuning: QUICK });
const watch = instrument(device);
afterAll(() => {
  watch.restore();
  other.destroy();
  otherDevice.destroy();
});

// ---- one layer and one model, used after every refusal --------------------------------------------------------------------------------
const [batch, queries, tokens, dim] = [2, 5, 7, 12];
const config = { dim, order: 2, orderExpand: 1 };
const params = layerParams(1, config);
const layer = await HomLayer.create(gpu, config, params);
const destroyedLayer = await HomLayer.create(gpu, config, params);
destroyedLayer.destroy();
const zeros = (...shape: number[]): Tensor => Tensor.from(gpu, new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
const query = Tensor.from(gpu, normals32(2, batch * queries * dim), [batch, queries, dim]);
const context = Tensor.from(gpu, normals32(3, batch * tokens * dim), [batch, tokens, dim]);
const packed = zeros(1, 10, dim);
const [wideTensor, flat, short, threeRows] = [zeros(batch, queries, dim + 1), zeros(batch, dim), zeros(batch, tokens, 3), zeros(3, tokens, dim)];
const halves = Tensor.from(gpu, new Float32Array(query.size), query.shape, { dtype: "f16" });
const dead = zeros(batch, queries, dim);
dead.destroy();
const foreign = Tensor.from(other, new Float32Array(query.size), query.shape);
const padding = { padding: new Uint8Array(batch * tokens).fill(1) };
const lengths = { lengths: Uint32Array.of(3, 7) };
const deadMask = layer.createMask(lengths, { batch, queryLength: queries, contextLength: tokens });
deadMask.destroy();
const otherMask = layer.createMask(lengths, { batch, queryLength: queries, contextLength: tokens + 1 });
const foreignMask = await HomLayer.create(other, config, params).then((l) =>
  l.createMask(lengths, { batch, queryLength: queries, contextLength: tokens }),
);
const noStorage = device.createBuffer({ size: 1024, usage: COPY_SRC | COPY_DST });
const small = device.createBuffer({ size: 1024, usage: STORAGE | COPY_SRC | COPY_DST });
const noCopy = device.createBuffer({ size: 1024, usage: STORAGE });
const largeOut = Tensor.wrap(gpu, device.createBuffer({ size: 4096, usage: STORAGE | COPY_SRC | COPY_DST }), query.shape);

const hlm = { vocabSize: 11, dim: 4, layers: 1, contextLength: 8, order: 2, orderExpand: 1, ffwExpand: 1 };
const hlmWeights = Object.fromEntries(
  Object.entries({
    "token_emb.weight": 11 * 4,
    "pos_emb.0.weight": 8 * 4,
    "pos_emb.0.bias": 8,
    "pos_emb.2.weight": 4 * 8,
    "pos_emb.2.bias": 4,
    "layers.0.hom.ho_proj.weight": 8 * 4,
    "layers.0.hom.ho_proj.bias": 8,
    "layers.0.hom.se_proj.weight": 8 * 4,
    "layers.0.hom.se_proj.bias": 8,
    "layers.0.hom.ag_proj.weight": 4 * 8,
    "layers.0.hom.ag_proj.bias": 4,
    "layers.0.ffw.0.weight": 16,
    "layers.0.ffw.0.bias": 4,
    "layers.0.ffw.2.weight": 16,
    "layers.0.ffw.2.bias": 4,
    "output_proj.weight": 44,
    "output_proj.bias": 11,
  }).map(([key, size], i) => [key, normals32(40 + i, size)]),
);
const model = await Hlm.create(gpu, hlm, hlmWeights);
const destroyedModel = await Hlm.create(gpu, hlm, hlmWeights);
destroyedModel.destroy();
const blockConfig = { ...config, ffwExpand: 2 };
const blockParams = {
  ...Object.fromEntries(Object.entries(params).map(([key, value]) => [`hom.${key}`, value])),
  "ffw.1.weight": normals32(60, 24 * dim),
  "ffw.1.bias": normals32(61, 24),
  "ffw.3.weight": normals32(62, 24 * dim),
  "ffw.3.bias": normals32(63, dim),
};
const block = await HomBlock.create(gpu, blockConfig, blockParams);
const ids = Int32Array.of(1, 2, 3, 4);
const state = layer.createState({ batch });
layer.append(state, context);

const works = async () => {
  using y = layer.forward(query, { context, mask: padding });
  using s = layer.query(state, query);
  using logits = model.forward(ids);
  return [await y.read(), await s.read(), await logits.read()] as const;
};
const expected = await works();
const counts = [...state.count];

// ---- the table --------------------------------------------------------------------------------------------------------------------------
type Row = readonly [name: string, call: () => unknown, error: new (...args: never[]) => Error, message: RegExp];

// biome-ignore lint/suspicious/noExplicitAny: most rows are what the types forbid
const any = (value: unknown): any => value;
const without = (key: string) => Object.fromEntries(Object.entries(params).filter(([k]) => k !== key));
const spoiled = (key: string, value: number) => ({ ...params, [key]: params[key]!.map((v, i) => (i === 5 ? value : v)) });
const create = (change: object, p: unknown = params) => HomLayer.create(gpu, any({ ...config, ...change }), any(p));
const forward = (options: object, q: Tensor = query) => layer.forward(q, options as HomForwardOptions);
const masked = (mask: unknown) => forward({ context, mask });
const selfMasked = (mask: unknown, q = query) => forward({ mask }, q);
const collect = async (p: unknown, options: object) => {
  for await (const _ of model.generate(any(p), options as object));
};
const limited = async (limits: object): Promise<Gpu> => {
  const g = await requestGpu({ device, tuning: QUICK });
  Object.defineProperty(g, "limits", { value: { ...g.limits, ...limits } });
  return g;
};

const rows: Row[] = [
  ["a device that is none", () => requestGpu({ device: any(5) }), TypeError, /^requestGpu: device must be a GPUDevice, got 5$/],
  [
    "an unknown option",
    () => requestGpu(any({ devise: device })),
    TypeError,
    /^requestGpu: options must have only the keys .*, got the unknown key "devise"/,
  ],
  [
    "a block size of 12",
    () => requestGpu({ device, tuning: { blockTokens: 12 } }),
    RangeError,
    /^requestGpu: tuning.blockTokens must be a power of two, got 12/,
  ],
  [
    "a block size of 4",
    () => requestGpu({ device, tuning: { prefixBlockTokens: 4 } }),
    RangeError,
    /tuning.prefixBlockTokens must be an integer from 8 to \d+, got 4/,
  ],
  [
    "unknown tuning",
    () => requestGpu({ device, tuning: any({ block: 8 }) }),
    TypeError,
    /^requestGpu: tuning must have only the keys .* got the unknown key "block"/,
  ],
  [
    "a tile that is none",
    () => requestGpu({ device, tuning: { tile: any("4x4") } }),
    TypeError,
    /^requestGpu: tuning.tile must be one of .* got "4x4"/,
  ],
  [
    "an adapter without a device",
    () =>
      requestGpu({
        adapter: any({ features: new Set(), limits: {}, info: { vendor: "acme" }, requestDevice: () => Promise.reject(new Error("busy")) }),
      }),
    GpuUnavailableError,
    /^requestGpu: the adapter acme gave no device: busy/,
  ],

  ["no gpu", () => Tensor.from(any({}), new Float32Array(2), [2]), TypeError, /^Tensor.from: gpu must be what requestGpu\(\) returned, got Object/],
  ["an array", () => Tensor.from(gpu, any([1, 2]), [2]), TypeError, /^Tensor.from: data must be a Float32Array, got \[1, 2\]/],
  ["doubles", () => Tensor.from(gpu, any(new Float64Array(2)), [2]), TypeError, /data must be a Float32Array, got Float64Array of length 2/],
  [
    "too few numbers",
    () => Tensor.from(gpu, new Float32Array(5), [2, 3]),
    RangeError,
    /^Tensor.from: data must have 6 elements for shape \[2, 3\], got 5/,
  ],
  ["a shape that is a number", () => Tensor.from(gpu, new Float32Array(5), any(5)), TypeError, /shape must be an array of dimensions, got 5/],
  ["rank 0", () => Tensor.from(gpu, new Float32Array(1), []), TypeError, /shape must be an array of dimensions, got \[\]/],
  ["an empty batch", () => Tensor.from(gpu, new Float32Array(), [0, 3, dim]), RangeError, /shape must have only positive integers, got \[0, 3, 12\]/],
  ["zero tokens", () => Tensor.from(gpu, new Float32Array(), [1, 0, dim]), RangeError, /shape must have only positive integers, got \[1, 0, 12\]/],
  ["half a token", () => Tensor.from(gpu, new Float32Array(6), [1, 0.5, dim]), RangeError, /positive integers, got \[1, 0.5, 12\]/],
  [
    "more than a buffer holds",
    async () => Tensor.from(await limited({ maxBufferSize: 16 }), new Float32Array(5), [5]),
    RangeError,
    /^Tensor.from: size must be at most the device's maxBufferSize of 16 bytes, got 20 bytes; use a smaller batch/,
  ],

  [
    "a buffer that is none",
    () => Tensor.wrap(gpu, any(new Float32Array(2)), [2]),
    TypeError,
    /^Tensor.wrap: buffer must be a GPUBuffer, got Float32Array of length 2/,
  ],
  ["null for a buffer", () => Tensor.wrap(gpu, any(null), [2]), TypeError, /buffer must be a GPUBuffer, got null/],
  [
    "a buffer without STORAGE",
    () => Tensor.wrap(gpu, noStorage, [2]),
    TypeError,
    /buffer must have STORAGE usage, got usage 0xc; create it with GPUBufferUsage.STORAGE/,
  ],
  [
    "a buffer that is too small",
    () => Tensor.wrap(gpu, small, [257]),
    RangeError,
    /buffer must hold 1028 bytes from byte 0 on for shape \[257\], got a buffer of 1024 bytes/,
  ],
  ["an offset past the end", () => Tensor.wrap(gpu, small, [256], { byteOffset: 4 }), RangeError, /hold 1024 bytes from byte 4 on/],
  ["an odd offset", () => Tensor.wrap(gpu, small, [2], { byteOffset: 6 }), RangeError, /^Tensor.wrap: byteOffset must be a multiple of 4, got 6/],
  ["a negative offset", () => Tensor.wrap(gpu, small, [2], { byteOffset: -4 }), RangeError, /byteOffset must be an integer >= 0, got -4/],
  [
    "a tensor of doubles",
    () => Tensor.wrap(gpu, small, [2], { dtype: any("f64") }),
    TypeError,
    /^Tensor.wrap: dtype must be one of "f32", "f16", got "f64"/,
  ],
  [
    "a dtype for an upload",
    () => Tensor.from(gpu, new Float32Array(2), [2], { dtype: any("i8") }),
    TypeError,
    /^Tensor.from: dtype must be one of "f32", "f16", got "i8"/,
  ],
  [
    "an unknown option of an upload",
    () => Tensor.from(gpu, new Float32Array(2), [2], any({ type: "f16" })),
    TypeError,
    /^Tensor.from: options must have only the keys dtype, got the unknown key "type"/,
  ],
  [
    "offset for byteOffset",
    () => Tensor.wrap(gpu, small, [2], any({ offset: 4 })),
    TypeError,
    /options must have only the keys byteOffset, dtype, got the unknown key "offset"/,
  ],
  ["a destroyed tensor", () => dead.read(), TypeError, /^Tensor.read: tensor must be alive, got a destroyed tensor/],
  [
    "a buffer without COPY_SRC",
    () => Tensor.wrap(gpu, noCopy, [2]).read(),
    TypeError,
    /^Tensor.read: buffer must have COPY_SRC usage, got usage 0x80/,
  ],

  [
    "no gpu",
    () => HomLayer.create(any(device), config, params),
    TypeError,
    /^HomLayer.create: gpu must be what requestGpu\(\) returned, got GPUDevice/,
  ],
  ["no configuration", () => HomLayer.create(gpu, any(null), params), TypeError, /^HomLayer.create: config must be an object, got null/],
  ["an unknown configuration key", () => create({ degree: 3 }), TypeError, /config must have only the keys .*, got the unknown key "degree"/],
  ["width 0", () => create({ dim: 0 }), RangeError, /^HomLayer.create: dim must be an integer from 1 to 65536, got 0/],
  ["no width", () => create({ dim: undefined }), TypeError, /dim must be a number, got undefined/],
  ["width as text", () => create({ dim: "12" }), TypeError, /dim must be a number, got "12"/],
  ["order 0", () => create({ order: 0 }), RangeError, /^HomLayer.create: order must be an integer from 1 to 8, got 0/],
  ["order 9", () => create({ order: 9 }), RangeError, /order must be an integer from 1 to 8, got 9/],
  ["order 1.5", () => create({ order: 1.5 }), RangeError, /order must be an integer from 1 to 8, got 1.5/],
  ["order NaN", () => create({ order: Number.NaN }), RangeError, /order must be an integer from 1 to 8, got NaN/],
  ["expansion 0", () => create({ orderExpand: 0 }), RangeError, /orderExpand must be an integer from 1 to 1024, got 0/],
  [
    "an unknown activation",
    () => create({ activation: "relu" }),
    TypeError,
    /activation must be one of "gelu", "tanh", "identity", "x_erf", got "relu"/,
  ],
  ["doubles", () => create({ dtype: "f64" }), TypeError, /^HomLayer.create: dtype must be one of "f32", "f16", got "f64"/],
  ["two bits", () => create({ weightDtype: "i2" }), TypeError, /^HomLayer.create: weightDtype must be one of .* got "i2"/],
  [
    "f16 of an odd width",
    () => create({ dim: 13, dtype: "f16" }),
    RangeError,
    /^HomLayer.create: dim must be a multiple of 4 for dtype "f16", got 13/,
  ],
  ["a bias of 1", () => create({ bias: 1 }), TypeError, /bias must be true or false, got 1/],
  [
    "a budget for nothing",
    () => create({ scratchBudget: 100 }),
    RangeError,
    /scratchBudget must be at least \d+ bytes for this width and order, got 100/,
  ],
  ["a budget of no bytes", () => create({ scratchBudget: 0 }), RangeError, /scratchBudget must be an integer >= 1, got 0/],
  [
    "weights that cannot be bound",
    async () => HomLayer.create(await limited({ maxStorageBufferBindingSize: 2000 }), config, params),
    RangeError,
    /^HomLayer.create: config must give weights that the device can bind, at most 2000 bytes, got dim 12, order 2, orderExpand 1: 2496 bytes; use a smaller/,
  ],
  ["no parameters", () => create({}, null), TypeError, /^HomLayer.create: params must be an object of Float32Arrays, got null/],
  ["a missing parameter", () => create({}, without("se_proj.bias")), WeightsError, /params must have .*, missing se_proj.bias; pass bias: false/],
  [
    "an extra parameter",
    () => create({}, { ...params, "qc_proj.weight": new Float32Array(2) }),
    WeightsError,
    /params must have only .*, got "qc_proj.weight"/,
  ],
  ["biases for a layer without", () => create({ bias: false }), WeightsError, /params must have only .*, got "ho_proj.bias"/],
  [
    "a short parameter",
    () => create({}, { ...params, "ag_proj.bias": new Float32Array(11) }),
    WeightsError,
    /params\["ag_proj.bias"\] must have 12 elements \(\[12\]\), got 11/,
  ],
  [
    "double parameters",
    () => create({}, { ...params, "ag_proj.bias": new Float64Array(12) }),
    WeightsError,
    /params\["ag_proj.bias"\] must be a Float32Array, got Float64Array of length 12/,
  ],
  [
    "NaN in a weight",
    () => create({}, spoiled("ho_proj.weight", Number.NaN)),
    WeightsError,
    /params\["ho_proj.weight"\] must be finite, got NaN at element 5/,
  ],
  [
    "infinity in a bias",
    () => create({}, spoiled("se_proj.bias", -Infinity)),
    WeightsError,
    /params\["se_proj.bias"\] must be finite, got -Infinity at element 5/,
  ],

  [
    "an array for a tensor",
    () => layer.forward(any(new Float32Array(120))),
    TypeError,
    /^HomLayer.forward: query must be a Tensor, got Float32Array of length 120; upload arrays with Tensor.from/,
  ],
  ["another width", () => forward({}, wideTensor), RangeError, /^HomLayer.forward: query must have shape \[B, T, 12\], got \[2, 5, 13\]/],
  ["rank 2", () => forward({}, flat), RangeError, /query must have shape \[B, T, 12\], got \[2, 12\]/],
  ["a destroyed query", () => forward({}, dead), TypeError, /^HomLayer.forward: query must be alive, got a destroyed tensor/],
  [
    "a query of another device",
    () => forward({}, foreign),
    TypeError,
    /^HomLayer.forward: query must be on the layer's device, got a tensor of another device/,
  ],
  ["a context of another width", () => forward({ context: short }), RangeError, /context must have shape \[2, N, 12\], got \[2, 7, 3\]/],
  ["a context of another batch", () => forward({ context: threeRows }), RangeError, /context must have shape \[2, N, 12\], got \[3, 7, 12\]/],
  ["a destroyed context", () => forward({ context: dead }), TypeError, /context must be alive, got a destroyed tensor/],
  ["null for the context", () => forward({ context: null }), TypeError, /context must be a Tensor, got null/],
  ["a residual of another shape", () => forward({ residual: context }), RangeError, /residual must have shape \[2, 5, 12\], got \[2, 7, 12\]/],
  ["an out of another shape", () => forward({ context, out: threeRows }), RangeError, /out must have shape \[2, 5, 12\], got \[3, 7, 12\]/],
  ["the query as out", () => forward({ out: query }), TypeError, /^HomLayer.forward: out must be in a buffer of its own, got the buffer of query/],
  [
    "the context's buffer as out",
    () => forward({ context, out: Tensor.wrap(gpu, context.buffer, query.shape) }),
    TypeError,
    /out must be in a buffer of its own, got the buffer of context/,
  ],
  [
    "the residual as out",
    () => forward({ residual: largeOut, out: largeOut }),
    TypeError,
    /out must be in a buffer of its own, got the buffer of residual/,
  ],
  ["a residual of another dtype", () => forward({ residual: halves }), TypeError, /residual must have the output's dtype "f32", got "f16"/],
  [
    "halves at an odd word",
    () => forward({}, Tensor.wrap(gpu, small, [1, 2, dim], { byteOffset: 4, dtype: "f16" })),
    RangeError,
    /query must start at a multiple of 8 bytes when it is f16, got 4/,
  ],
  [
    "an unknown option",
    () => forward({ masks: "causal" }),
    TypeError,
    /^HomLayer.forward: options must have only the keys .*, got the unknown key "masks"/,
  ],
  ["null for options", () => layer.forward(query, any(null)), TypeError, /options must be an object, got null/],
  ["a destroyed layer", () => destroyedLayer.forward(query), TypeError, /^HomLayer.forward: layer must be alive, got a destroyed layer/],

  ["a misspelt mask", () => selfMasked("casual"), TypeError, /^HomLayer.forward: mask must be "causal" or an object with one of .*, got "casual"/],
  ["null for a mask", () => selfMasked(null), TypeError, /mask must be "causal" or an object .* got null/],
  ["two masks", () => masked({ ...lengths, ...padding }), TypeError, /mask must be .* got an object with lengths, padding/],
  ["an unknown mask", () => masked({ window: 5 }), TypeError, /mask must be .* got an object with window/],
  ["an empty mask", () => masked({}), TypeError, /mask must be "causal" or an object/],
  [
    "causal with another length",
    () => masked("causal"),
    RangeError,
    /query and context must be equally long for a "causal" mask, got 5 queries and 7 context tokens/,
  ],
  [
    "blockCausal with another length",
    () => masked({ blockCausal: 2 }),
    RangeError,
    /equally long for a blockCausal mask, got 5 queries and 7 context tokens/,
  ],
  ["blocks of 0", () => selfMasked({ blockCausal: 0 }), RangeError, /mask.blockCausal must be an integer >= 1, got 0/],
  ["blocks of 1.5", () => selfMasked({ blockCausal: 1.5 }), RangeError, /mask.blockCausal must be an integer >= 1, got 1.5/],
  ["padding of another size", () => masked({ padding: new Uint8Array(3) }), RangeError, /mask.padding must have 14 \(\[2, 7\]\) elements, got 3/],
  ["padding as an array", () => masked({ padding: [1, 0] }), TypeError, /mask.padding must be a Uint8Array or a Float32Array, got \[1, 0\]/],
  [
    "NaN in the padding",
    () => masked({ padding: new Float32Array(14).fill(Number.NaN, 3, 4) }),
    RangeError,
    /mask.padding\[3\] must be finite, got NaN/,
  ],
  ["too few lengths", () => masked({ lengths: Uint32Array.of(3) }), RangeError, /mask.lengths must have 2 elements, one a batch row, got 1/],
  ["signed lengths", () => masked({ lengths: Int32Array.of(3, 4) }), TypeError, /mask.lengths must be a Uint32Array, got Int32Array of length 2/],
  [
    "a length past the end",
    () => masked({ lengths: Uint32Array.of(3, 8) }),
    RangeError,
    /mask.lengths\[1\] must be at most the context length 7, got 8/,
  ],
  [
    "a full mask of another size",
    () => masked({ full: new Uint8Array(5) }),
    RangeError,
    /mask.full must have 70 \(\[2, 5, 7\]\) or 35 \(\[1, 5, 7\]\) elements, got 5/,
  ],
  [
    "infinity in a full mask",
    () => masked({ full: new Float32Array(70).fill(Infinity, 69) }),
    RangeError,
    /mask.full\[69\] must be finite, got Infinity/,
  ],
  [
    "cuSeqlens in a batch",
    () => selfMasked({ cuSeqlens: Uint32Array.of(0, 5) }),
    RangeError,
    /packed as \[1, total, D\] for a cuSeqlens mask, got batch 2/,
  ],
  ["cuSeqlens as an array", () => selfMasked({ cuSeqlens: [0, 10] }, packed), TypeError, /mask.cuSeqlens must be a Uint32Array, got \[0, 10\]/],
  [
    "cuSeqlens that decrease",
    () => selfMasked({ cuSeqlens: Uint32Array.of(0, 6, 4, 10) }, packed),
    RangeError,
    /mask.cuSeqlens\[2\] must be at least mask.cuSeqlens\[1\] = 6, got 4/,
  ],
  [
    "cuSeqlens of another total",
    () => selfMasked({ cuSeqlens: Uint32Array.of(0, 6, 9) }, packed),
    RangeError,
    /the last element of mask.cuSeqlens must be the total of 10 tokens, got 9/,
  ],
  ["cuSeqlens from 1", () => selfMasked({ cuSeqlens: Uint32Array.of(1, 10) }, packed), RangeError, /mask.cuSeqlens\[0\] must be 0, got 1/],
  [
    "a single cuSeqlen",
    () => selfMasked({ cuSeqlens: Uint32Array.of(0) }, packed),
    RangeError,
    /mask.cuSeqlens must have at least 2 elements, got 1/,
  ],
  [
    "a mask for another length",
    () => masked(otherMask),
    RangeError,
    /mask must be made for batch 2, 5 queries, 7 context tokens, got a mask for batch 2, 5 queries, 8 context tokens/,
  ],
  ["a destroyed mask", () => masked(deadMask), TypeError, /mask must be alive, got a destroyed mask/],
  ["a mask of another device", () => masked(foreignMask), TypeError, /mask must be on the layer's device, got a mask of another device/],
  [
    "a short queryMask",
    () => forward({ mask: "causal", queryMask: new Uint8Array(3) }),
    RangeError,
    /queryMask must have 10 elements, got Uint8Array of length 3/,
  ],
  [
    "a queryMask of floats",
    () => forward({ mask: "causal", queryMask: new Float32Array(10) }),
    TypeError,
    /queryMask must be a Uint8Array, got Float32Array of length 10/,
  ],
  [
    "a queryMask without a causal mask",
    () => forward({ queryMask: new Uint8Array(10) }),
    TypeError,
    /queryMask must come with mask "causal", got another mask/,
  ],
  [
    "a queryMask with causal blocks",
    () => forward({ mask: { blockCausal: 4 }, queryMask: new Uint8Array(10) }),
    TypeError,
    /queryMask must come with mask "causal"/,
  ],

  [
    "no encoder",
    () => layer.encode(any(undefined), { query }),
    TypeError,
    /^HomLayer.encode: commandEncoder must be a GPUCommandEncoder, got undefined/,
  ],
  [
    "a device for an encoder",
    () => layer.encode(any(device), { query }),
    TypeError,
    /^HomLayer.encode: commandEncoder must be a GPUCommandEncoder, got GPUDevice/,
  ],
  [
    "nothing to encode",
    () => layer.encode(device.createCommandEncoder(), any({})),
    TypeError,
    /^HomLayer.encode: query must be a Tensor, got undefined/,
  ],
  [
    "an unknown option of encode",
    () => layer.encode(device.createCommandEncoder(), any({ query, dtype: "f32" })),
    TypeError,
    /^HomLayer.encode: options must have only the keys .* "dtype"/,
  ],
  ["a plan for no batch", () => layer.plan({ batch: 0, queryLength: 5 }), RangeError, /^HomLayer.plan: batch must be an integer >= 1, got 0/],
  ["a plan without a length", () => layer.plan(any({ batch: 1 })), TypeError, /^HomLayer.plan: queryLength must be a number, got undefined/],
  [
    "a plan for half a token",
    () => layer.plan({ batch: 1, queryLength: 1, contextLength: 0.5 }),
    RangeError,
    /contextLength must be an integer >= 1, got 0.5/,
  ],
  [
    "an unknown option of plan",
    () => layer.plan(any({ batch: 1, queryLength: 1, tokens: 3 })),
    TypeError,
    /^HomLayer.plan: options must have only the keys .* "tokens"/,
  ],
  [
    "a plan with a bad mask",
    () => layer.plan({ batch: 2, queryLength: 5, mask: lengths, contextLength: 3 }),
    RangeError,
    /^HomLayer.plan: mask.lengths\[1\] must be at most the context length 3, got 7/,
  ],
  [
    "createMask of a bad mask",
    () => layer.createMask(any("diagonal"), { batch: 1, queryLength: 1 }),
    TypeError,
    /^HomLayer.createMask: mask must be .* got "diagonal"/,
  ],
  [
    "createMask of a destroyed layer",
    () => destroyedLayer.createMask("causal", { batch: 1, queryLength: 1 }),
    TypeError,
    /^HomLayer.createMask: layer must be alive/,
  ],

  ["a state of no batch", () => layer.createState({ batch: 0 }), RangeError, /^HomLayer.createState: batch must be an integer from 1 to \d+, got 0/],
  ["a state that is none", () => layer.append(any({}), context), TypeError, /^HomLayer.append: state must be a HomState, got Object/],
  [
    "an append of another width",
    () => layer.append(state, wideTensor),
    RangeError,
    /^HomLayer.append: context must have shape \[2, n, 12\], got \[2, 5, 13\]/,
  ],
  ["an append of a destroyed tensor", () => layer.append(state, dead), TypeError, /^HomLayer.append: context must be alive/],
  [
    "a step of another batch",
    () => layer.step(state, threeRows),
    RangeError,
    /^HomLayer.step: tokens must have shape \[2, n, 12\], got \[3, 7, 12\]/,
  ],
  ["a query of another device", () => layer.query(state, foreign), TypeError, /^HomLayer.query: query must be on the layer's device/],

  ["no block configuration", () => HomBlock.create(gpu, any(null), blockParams), TypeError, /^HomBlock.create: config must be an object, got null/],
  [
    "no block parameters",
    () => HomBlock.create(gpu, blockConfig, any(undefined)),
    TypeError,
    /^HomBlock.create: params must be an object of Float32Arrays, got undefined/,
  ],
  [
    "a block of no width inside",
    () => HomBlock.create(gpu, { ...blockConfig, ffwExpand: 0 }, blockParams),
    RangeError,
    /^HomBlock.create: ffwExpand must be an integer >= 1, got 0/,
  ],
  [
    "a block of halves",
    () => HomBlock.create(gpu, { ...blockConfig, dtype: "f16" }, blockParams),
    TypeError,
    /^HomBlock.create: dtype must be one of "f32", got "f16"/,
  ],
  [
    "a block without a bias",
    () => HomBlock.create(gpu, blockConfig, { ...blockParams, "ffw.3.bias": any(undefined) }),
    WeightsError,
    /^HomBlock.create: params must have a Float32Array "ffw.3.bias" of shape \[12\], got undefined/,
  ],
  [
    "NaN in a block",
    () => HomBlock.create(gpu, blockConfig, { ...blockParams, "ffw.1.bias": new Float32Array(24).fill(Number.NaN) }),
    WeightsError,
    /params\["ffw.1.bias"\] must be finite, got NaN at element 0/,
  ],
  [
    "a block's out of another shape",
    () => block.forward(query, { out: threeRows }),
    RangeError,
    /^HomBlock.forward: out must have shape \[2, 5, 12\], got \[3, 7, 12\]/,
  ],
  ["a block's destroyed out", () => block.forward(query, { out: dead }), TypeError, /^HomBlock.forward: out must be alive, got a destroyed tensor/],
  [
    "a block's out of halves",
    () => block.forward(query, { out: halves }),
    TypeError,
    /^HomBlock.forward: out's dtype must be one of "f32", got "f16"/,
  ],
  ["a block's query that is none", () => block.forward(any(5)), TypeError, /query must be a Tensor, got 5/],

  ["no vocabulary", () => Hlm.create(gpu, { ...hlm, vocabSize: 0 }, hlmWeights), RangeError, /^Hlm.create: vocabSize must be an integer >= 1, got 0/],
  ["an odd width", () => Hlm.create(gpu, { ...hlm, dim: 5 }, hlmWeights), RangeError, /^Hlm.create: dim must be even.* got 5/],
  [
    "an unknown model key",
    () => Hlm.create(gpu, any({ ...hlm, heads: 2 }), hlmWeights),
    TypeError,
    /^Hlm.create: config must have only the keys .* "heads"/,
  ],
  ["no model weights", () => Hlm.create(gpu, hlm, {}), WeightsError, /^Hlm.create: /],
  ["a model with a layer too many", () => Hlm.create(gpu, { ...hlm, layers: 2 }, hlmWeights), WeightsError, /layers\.1\./],
  [
    "NaN in a model's weight",
    () => Hlm.create(gpu, hlm, { ...hlmWeights, "output_proj.bias": new Float32Array(11).fill(Number.NaN) }),
    WeightsError,
    /output_proj.bias.*NaN/,
  ],
  ["ids as an array", () => model.forward(any([1, 2])), TypeError, /^Hlm.forward: tokenIds must be an Int32Array, got \[1, 2\]/],
  ["no ids", () => model.forward(new Int32Array()), RangeError, /^Hlm.forward: tokenIds must have at least one/],
  ["an id past the vocabulary", () => model.forward(Int32Array.of(1, 11)), RangeError, /tokenIds\[1\] must be a token id from 0 to 10, got 11/],
  ["a negative id", () => model.forward(Int32Array.of(-1)), RangeError, /tokenIds\[0\] must be a token id from 0 to 10, got -1/],
  ["ragged rows", () => model.forward(ids, { batch: 3 }), RangeError, /tokenIds must have 3 rows of equal length, got 4 ids/],
  ["a text that is too long", () => model.forward(new Int32Array(9)), RangeError, /tokenIds must have at most contextLength = 8 tokens a row, got 9/],
  ["a negative position", () => model.forward(ids, { posOffset: -1 }), RangeError, /posOffset must be an integer .* got -1/],
  ["a short attentionMask", () => model.forward(ids, { attentionMask: new Uint8Array(3) }), RangeError, /attentionMask must have 4 elements, got 3/],
  ["a destroyed model", () => destroyedModel.forward(ids), TypeError, /^Hlm.forward: model must be alive, got a destroyed model/],
  ["a negative number of tokens", () => collect(ids, { maxTokens: -1 }), RangeError, /^Hlm.generate: maxTokens must be an integer >= 0, got -1/],
  [
    "temperature NaN",
    () => collect(ids, { temperature: Number.NaN }),
    RangeError,
    /^Hlm.generate: temperature must be a finite number >= 0, got NaN/,
  ],
  ["the likeliest 0", () => collect(ids, { topK: 0 }), RangeError, /^Hlm.generate: topK must be an integer .* got 0/],
  ["an empty prompt", () => collect(new Int32Array(), {}), RangeError, /^Hlm.generate: promptIds must have at least one/],
  ["an unknown option of generate", () => collect(ids, { top_k: 3 }), TypeError, /^Hlm.generate: options must have only the keys .* "top_k"/],
];

async function failureOf(call: () => unknown): Promise<unknown> {
  try {
    await call();
  } catch (error) {
    return error;
  }
  return undefined;
}

/** Live buffers; a Gpu of its own, which some rows need, keeps an empty one. */
const kept = (): number => watch.live(/^(?!hom\.empty$)/).length;

describe("refused calls", () => {
  it("are many", () => {
    expect(rows.length).toBeGreaterThanOrEqual(100);
  });

  it.each(rows)("%s", async (_, call, errorClass, message) => {
    const before = kept();
    watch.reset();
    const error = await failureOf(call);
    expect(error).toBeInstanceOf(Error);
    // TypeError and RangeError are siblings, and so are the others: the class itself is meant.
    expect((error as Error).constructor.name, (error as Error).message).toBe(errorClass.name);
    expect((error as Error).message).toMatch(message);
    expect(watch.submits, "submits of a refused call").toBe(0);
    expect(kept(), "buffers that a refused call left").toBe(before);
    expect([...state.count]).toEqual(counts);
    (await works()).forEach((values, i) => {
      expectSameBits(values, expected[i]!, `what still works (${i})`);
    });
    expect(await takeUncapturedErrors(device)).toEqual([]);
  });
});

// ---- what the device refuses, later ------------------------------------------------------------------------------------------------------
describe("what only the device can refuse rejects in read(), and leaves it usable", () => {
  const buffer = () => device.createBuffer({ size: query.size * 4, usage: STORAGE | COPY_SRC | COPY_DST });
  const stillWorks = async () => expectSameBits((await works())[0], expected[0], "a good call");

  it("a foreign buffer that its owner destroyed", async () => {
    const owned = buffer();
    const x = Tensor.wrap(gpu, owned, query.shape);
    owned.destroy();
    using y = layer.forward(x, { context });
    await expect(y.read()).rejects.toThrow(/^HomLayer.forward: the device refused the work: .*destroyed/s);
    await expect(x.read()).rejects.toThrow(/^Tensor.read: the device refused the work: .*destroyed/s);
    await stillWorks();
  });

  it("a foreign out that its owner destroyed", async () => {
    const owned = buffer();
    const out = Tensor.wrap(gpu, owned, query.shape);
    owned.destroy();
    layer.forward(query, { context, out });
    await expect(out.read()).rejects.toThrow(/^HomLayer.forward: the device refused the work/);
    await stillWorks();
  });

  it("a wrapped buffer of another device", async () => {
    const theirs = otherDevice.createBuffer({ size: query.size * 4, usage: STORAGE });
    using y = layer.forward(Tensor.wrap(gpu, theirs, query.shape));
    await expect(y.read()).rejects.toThrow(/^HomLayer.forward: the device refused the work/);
    await stillWorks();
  });

  it("a result that depends on a refused one", async () => {
    const owned = buffer();
    const x = Tensor.wrap(gpu, owned, query.shape);
    owned.destroy();
    using first = layer.forward(x);
    using second = layer.forward(first, { context });
    await expect(second.read()).rejects.toThrow(/the device refused the work/);
    await stillWorks();
  });

  it("an encoder that was finished", async () => {
    const encoder = device.createCommandEncoder();
    encoder.finish();
    using y = layer.encode(encoder, { query });
    await expect(y.read()).rejects.toThrow(/^HomLayer.encode: the device refused the work/);
    await stillWorks();
  });

  it("nobody has to wait for the failure", async () => {
    const owned = buffer();
    const x = Tensor.wrap(gpu, owned, query.shape);
    owned.destroy();
    layer.forward(x).destroy();
    await stillWorks();
  });
});

// ---- memory ------------------------------------------------------------------------------------------------------------------------------
describe("out of memory", () => {
  it.each([
    ["the output", /^hom\.output$/],
    ["scratch memory", /^hom\.scratch/],
    ["uniforms", /^hom\.program/],
    ["a mask", /^hom\.mask/],
  ])("for %s: read() rejects with GpuOutOfMemoryError, the same call works later", async (_, label) => {
    const own = await requestGpu({ device, tuning: QUICK });
    using small = await HomLayer.create(own, config, params);
    const run = () => small.forward(query, { context, mask: padding });
    const restore = failAllocations(device, label);
    const failed = run();
    restore();
    const error = await failureOf(() => failed.read());
    expect(error).toBeInstanceOf(GpuOutOfMemoryError);
    expect((error as Error).message).toMatch(/^HomLayer.forward: the device is out of memory; free tensors or use a smaller batch/);
    using y = run();
    expectSameBits(await y.read(), expected[0], "the same call");
    own.destroy();
  });

  it("for weights: create() rejects", async () => {
    const restore = failAllocations(device, /weights$/);
    const error = await failureOf(() => HomLayer.create(gpu, config, params));
    restore();
    expect(error).toBeInstanceOf(GpuOutOfMemoryError);
    expect((error as Error).message).toMatch(/^HomLayer.create: the device is out of memory/);
  });

  it("for the weights inside a block or a model: create() rejects, nothing is left behind", async () => {
    const live = watch.liveBuffers;
    for (const create of [() => HomBlock.create(gpu, blockConfig, blockParams), () => Hlm.create(gpu, hlm, hlmWeights)]) {
      const restore = failAllocations(device, /^hom\.ffw.*weights$/);
      const error = await failureOf(create);
      restore();
      expect(error).toBeInstanceOf(GpuOutOfMemoryError);
    }
    expect(watch.liveBuffers).toBe(live);
  });

  it("for a tensor: read() of it and of what depends on it rejects", async () => {
    const restore = failAllocations(device, /^hom\.tensor/);
    using x = Tensor.from(gpu, new Float32Array(query.size), query.shape);
    restore();
    using y = layer.forward(x);
    expect(await failureOf(() => x.read())).toBeInstanceOf(GpuOutOfMemoryError);
    expect(await failureOf(() => y.read())).toBeInstanceOf(GpuOutOfMemoryError);
    expectSameBits((await works())[0], expected[0], "a good call");
  });

  it("where an upload throws at once, nothing is left behind", async () => {
    const { createBuffer } = device;
    const live = watch.liveBuffers;
    let left = 1;
    // biome-ignore lint/suspicious/noExplicitAny: a method replaced for the test
    (device as any).createBuffer = (descriptor: GPUBufferDescriptor) => {
      if (descriptor.label?.startsWith("hom.mask") && left-- === 0) throw new RangeError("createBuffer failed, size is too large");
      return createBuffer.call(device, descriptor);
    };
    const encoder = device.createCommandEncoder();
    try {
      expect(() => layer.forward(query, { context, mask: padding })).toThrow(/too large/);
      left = 1;
      expect(() => layer.encode(encoder, { query, context, mask: padding })).toThrow(/too large/);
    } finally {
      device.createBuffer = createBuffer;
    }
    expect(watch.liveBuffers).toBe(live);
    // The caller's encoder is not left with an open pass.
    using y = layer.encode(encoder, { query, context, mask: padding });
    device.queue.submit([encoder.finish()]);
    expectSameBits(await y.read(), expected[0], "encode");
  });

  it("a slab of a gigabyte, on an adapter that has none", async () => {
    const size = Math.min(device.limits.maxBufferSize, device.limits.maxStorageBufferBindingSize);
    const own = await requestGpu({ device, tuning: { ...QUICK, fusedSelectMaxDim: 0 } });
    const wide = { dim: 4, order: 8, orderExpand: 256 };
    using big = await HomLayer.create(own, { ...wide, scratchBudget: 4 * size }, layerParams(5, wide));
    // A full mask keeps the moments of all tokens at once, as far as the budget goes.
    const rowsOfMoments = Math.min(Math.floor(size / (8 * 256 * 4 * 4)), 30_000);
    if (rowsOfMoments * 8 * 256 * 4 * 4 < size / 2 || !own.info.software) return own.destroy();
    device.pushErrorScope("out-of-memory");
    const probe = device.createBuffer({ size: 2 ** Math.ceil(Math.log2(size - 256)), usage: STORAGE });
    const refused = await device.popErrorScope();
    probe.destroy();
    if (!refused) return own.destroy();
    using x = Tensor.from(own, new Float32Array(rowsOfMoments * 4), [1, rowsOfMoments, 4]);
    using few = Tensor.wrap(own, x.buffer, [1, 3, 4]);
    using y = big.forward(few, { context: x, mask: { full: new Float32Array(3 * rowsOfMoments).fill(1) } });
    expect(await failureOf(() => y.read())).toBeInstanceOf(GpuOutOfMemoryError);
    using z = big.forward(few);
    expect((await z.read()).length).toBe(12);
    own.destroy();
  });
});

// ---- lost devices --------------------------------------------------------------------------------------------------------------------------
describe("a lost device", () => {
  const ways: [string, (g: Gpu, d: GPUDevice) => void][] = [
    ["destroyed by its owner", (_, d) => d.destroy()],
    ["gpu.destroy()", (g) => g.destroy()],
  ];
  it.each(ways)("%s: everything rejects or throws GpuLostError", async (_, lose) => {
    const ownDevice = await createDevice();
    const own = await requestGpu({ device: ownDevice, tuning: QUICK });
    const mine = await HomLayer.create(own, config, params);
    const lm = await Hlm.create(own, hlm, hlmWeights);
    const x = Tensor.from(own, new Float32Array(query.size), query.shape);
    const memory = mine.createState({ batch });
    const y = mine.forward(x);
    await y.read();
    const generated = lm.generate(ids, { maxTokens: 50 });
    await generated.next();
    lose(own, ownDevice);

    // In the same turn, before anybody can know: a call may still go through, its result may not.
    const early = await failureOf(() => mine.forward(x).read());
    expect(early).toBeInstanceOf(GpuLostError);
    expect(await failureOf(() => y.read())).toBeInstanceOf(GpuLostError);

    await new Promise((resolve) => setTimeout(resolve, 20));
    const calls: Record<string, () => unknown> = {
      "HomLayer.create": () => HomLayer.create(own, config, params),
      "Hlm.create": () => Hlm.create(own, hlm, hlmWeights),
      "HomLayer.forward": () => mine.forward(x),
      "HomLayer.encode": () => mine.encode(device.createCommandEncoder(), { query: x }),
      "HomLayer.createMask": () => mine.createMask("causal", { batch: 1, queryLength: 1 }),
      "HomLayer.createState": () => mine.createState({ batch }),
      "HomLayer.append": () => mine.append(memory, x),
      "HomLayer.step": () => mine.step(memory, x),
      "Tensor.from": () => Tensor.from(own, new Float32Array(2), [2]),
      "Tensor.wrap": () => Tensor.wrap(own, x.buffer, [2]),
      "Tensor.read": () => y.read(),
      "Hlm.forward": () => lm.forward(ids),
    };
    for (const [name, call] of Object.entries(calls)) {
      const error = await failureOf(call);
      expect(error, name).toBeInstanceOf(GpuLostError);
      expect((error as Error).message).toMatch(new RegExp(`^${name}: the GPU device is lost \\(.+\\); request a new one and upload again$`));
    }
    const ended = await failureOf(async () => {
      for (let i = 0; i < 50; i++) if ((await generated.next()).done) throw new Error("generate ended without an error");
    });
    expect(ended).toBeInstanceOf(GpuLostError);
    expect(
      await failureOf(async () => {
        for await (const _ of lm.generate(ids, {}));
      }),
    ).toBeInstanceOf(GpuLostError);
    expect(mine.plan({ batch: 1, queryLength: 3 }).dispatches.length).toBeGreaterThan(0);
    // Freeing what is left is no error.
    for (const thing of [x, y, mine, lm, memory, own]) thing.destroy();
    ownDevice.destroy();
    expectSameBits((await works())[0], expected[0], "another device");
  });

  it("gpu.lost says why", async () => {
    const own = await createDevice();
    const g = await requestGpu({ device: own, tuning: QUICK });
    own.destroy();
    expect((await g.lost).reason).toBe("destroyed");
  });

  it("work in flight when the device goes is reported, not left waiting", async () => {
    const own = await createDevice();
    const g = await requestGpu({ device: own, tuning: QUICK });
    using mine = await HomLayer.create(g, config, params);
    using x = Tensor.from(g, new Float32Array(query.size), query.shape);
    const reading = mine.forward(x).read();
    own.destroy();
    const outcome = await failureOf(() => reading);
    // The copy may have arrived before.
    if (outcome !== undefined) expect(outcome).toBeInstanceOf(GpuLostError);
  });
});
