import { FULL, rangeError, raw, typeError } from "../checks.ts";
import type { Gpu } from "../runtime/gpu.ts";
import type { Dtype } from "../runtime/kernel.ts";
import { Tensor } from "../runtime/tensor.ts";

/** A live tensor of this device, of a form that the kernels can address: f16 lies in fours. @throws TypeError, RangeError */
export function checkTensor(where: string, name: string, tensor: Tensor, gpu: Gpu): void {
  if (!(tensor instanceof Tensor)) throw typeError(where, name, "be a Tensor", tensor, "upload arrays with Tensor.from");
  if (tensor.destroyed) throw typeError(where, name, "be alive", raw("a destroyed tensor"));
  if (tensor.gpu.device !== gpu.device) throw typeError(where, name, "be on the layer's device", raw("a tensor of another device"));
  if (!FULL || tensor.dtype !== "f16") return;
  if ((tensor.shape.at(-1) ?? 0) % 4 !== 0) throw rangeError(where, name, "have a last axis that is a multiple of 4 when it is f16", tensor.shape);
  if (tensor.byteOffset % 8 !== 0) throw rangeError(where, name, "start at a multiple of 8 bytes when it is f16", tensor.byteOffset);
}

/** An output and what is added to it; neither the output's type nor its memory may clash. @throws TypeError */
export function checkOutput(
  where: string,
  inputs: Readonly<Record<string, Tensor | undefined>>,
  { out, residual }: { readonly out: Tensor | undefined; readonly residual: Tensor | undefined },
  dtype: Dtype,
): void {
  const wanted = out?.dtype ?? dtype;
  if (residual && residual.dtype !== wanted) throw typeError(where, "residual", `have the output's dtype "${wanted}"`, residual.dtype);
  for (const [name, tensor] of Object.entries({ ...inputs, residual })) {
    if (out && tensor?.buffer === out.buffer) {
      const hint = "a GPU cannot read and write one buffer in one dispatch";
      throw typeError(where, "out", "be in a buffer of its own", raw(`the buffer of ${name}`), hint);
    }
  }
}
