import { decodeF16, encodeF16 } from "../../src/half.ts";
import type { LayerShape } from "./hom.ts";

export const rounded = (values: Float32Array): Float32Array => decodeF16(encodeF16(values));

/** What is left of the weights after storing them: i8 and i4 keep biases whole, f16 rounds them. */
export function stored(
  params: Record<string, Float32Array>,
  dtype: "f32" | "f16" | "i8" | "i4",
  { dim, orderExpand }: LayerShape,
): Record<string, Float32Array> {
  if (dtype === "f32") return params;
  const width = orderExpand * dim;
  return Object.fromEntries(
    Object.entries(params).map(([key, values]) => {
      if (dtype === "f16") return [key, rounded(values)];
      if (key.endsWith("bias")) return [key, values];
      const channels = key === "ag_proj.weight" ? dim : values.length / dim;
      const length = values.length / channels;
      // The output projection's inputs are the orders' channels, each order padded to a multiple of 4.
      const row = (i: number) => (key === "ag_proj.weight" ? Math.floor(i / width) * Math.ceil(width / 4) * 4 + (i % width) : i);
      const group = (i: number) => (dtype === "i8" ? 0 : Math.floor(row(i) / 32));
      const largest = new Map<string, number>();
      const place = (index: number) => `${Math.floor(index / length)} ${group(index % length)}`;
      values.forEach((value, index) => {
        largest.set(place(index), Math.max(largest.get(place(index)) ?? 0, Math.abs(value)));
      });
      return [
        key,
        values.map((value, index) => {
          const max = largest.get(place(index))!;
          const step = dtype === "i8" ? max / 127 : rounded(Float32Array.of(max / 7))[0]!;
          const most = dtype === "i8" ? 127 : 7;
          return step === 0 ? 0 : Math.max(-most, Math.min(most, Math.round(value / step))) * step;
        }),
      ];
    }),
  );
}
