"use client";
import { requestGpu } from "homm-webgpu";
import { useEffect, useState } from "react";

/**
 * A GPU, and what `create` makes on it, for as long as the component is mounted. A device that is lost is replaced, up to three times.
 * On a server effects do not run: it renders what there is before the GPU is ready.
 * @template T
 * @param {(gpu: import("homm-webgpu").Gpu) => Promise<T>} create stays the same between renders
 * @returns {{ value?: T, error?: Error }}
 */
export function useGpu(create) {
  const [state, setState] = useState(/** @type {{ value?: T, error?: Error }} */ ({}));
  const [losses, setLosses] = useState(0);
  useEffect(() => {
    let mounted = true;
    /** @type {import("homm-webgpu").Gpu | undefined} */
    let gpu;
    const start = async () => {
      gpu = await requestGpu();
      if (!mounted) return gpu.destroy();
      const value = await create(gpu);
      if (mounted) setState({ value });
      const { message } = await gpu.lost;
      if (mounted && losses < 3) setLosses(losses + 1);
      else if (mounted) setState({ error: new Error(`The GPU was lost: ${message}`) });
    };
    start().catch((error) => mounted && setState({ error }));
    return () => {
      mounted = false;
      gpu?.destroy();
      setState({});
    };
  }, [create, losses]);
  return state;
}
