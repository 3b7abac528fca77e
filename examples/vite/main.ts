import { fetchSafetensors, requestGpu } from "homm-webgpu";
import { charVocabulary, Hlm, hlmConfigOf } from "homm-webgpu/models";

const find = <T extends Element>(selector: string) => document.querySelector(selector) as T;
const [prompt, button, bar] = [find<HTMLInputElement>("#prompt"), find<HTMLButtonElement>("#go"), find<HTMLProgressElement>("#loaded")];
const [status, text] = [find("#status"), find("#text")];

try {
  const weights = await fetchSafetensors("checkpoints/hlm_shakespeare.safetensors", {
    onProgress: ({ loaded, total = Number.POSITIVE_INFINITY }) => {
      bar.value = loaded / total;
    },
    integrity: "sha256-lw3PXhfRTcaVzjSKfMQWwHZ94LdMz+xMLAQuYSzphP0=",
    cache: "homm-webgpu-example",
    retries: 2,
  });
  status.textContent = "Preparing the GPU…";
  const gpu = await requestGpu();
  const model = await Hlm.create(gpu, hlmConfigOf(weights), weights);
  const vocabulary = charVocabulary(weights);
  status.textContent = gpu.info.description;
  button.disabled = false;
  button.onclick = async () => {
    button.disabled = true;
    text.textContent = prompt.value;
    for await (const token of model.generate(vocabulary.encode(prompt.value), { maxTokens: 80, temperature: 0.8, topK: 20, refresh: 48 })) {
      text.append(vocabulary.decode([token]));
    }
    button.disabled = false;
  };
  gpu.lost.then(({ message }) => {
    button.disabled = true;
    status.textContent = `The GPU is gone (${message}); reload the page.`;
  });
} catch (error) {
  status.textContent = (error as Error).message;
}
