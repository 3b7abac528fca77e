"use client";
import { HomLayer, Tensor } from "homm-webgpu";
import { createElement as h, useState } from "react";
import { useGpu } from "./use_gpu.js";

const [dim, order, orderExpand, tokens] = [16, 2, 2, 100];
const M = order * orderExpand * dim;
const random = (/** @type {number} */ n) => Float32Array.from({ length: n }, () => Math.random() - 0.5);

/** @param {import("homm-webgpu").Gpu} gpu */
const createLayer = (gpu) =>
  HomLayer.create(
    gpu,
    { dim, order, orderExpand, bias: false },
    { "ho_proj.weight": random(M * dim), "se_proj.weight": random(M * dim), "ag_proj.weight": random(dim * M) },
  );

export function App() {
  const { value: layer, error } = useGpu(createLayer);
  const [answer, setAnswer] = useState("");
  if (error) return h("p", { role: "alert" }, error.message);

  async function mix() {
    if (!layer) return;
    const x = Tensor.from(layer.gpu, random(tokens * dim), [1, tokens, dim]);
    const y = layer.forward(x);
    const values = await y.read();
    setAnswer([...values.slice(0, 4)].map((value) => value.toFixed(3)).join(" "));
    for (const tensor of [x, y]) tensor.destroy();
  }
  return h(
    "main",
    null,
    h("button", { type: "button", disabled: !layer, onClick: mix }, layer ? `Mix ${tokens} tokens` : "Preparing the GPU…"),
    h("output", null, answer),
  );
}
