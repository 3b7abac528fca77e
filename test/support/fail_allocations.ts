/** Until the answer is called, allocations with such a label fail as those of a full device do. */
export function failAllocations(on: GPUDevice, label: RegExp): () => void {
  const { createBuffer, pushErrorScope, popErrorScope } = on;
  let failed = false;
  const scopes: string[] = [];
  const replace = (methods: object) => Object.assign(on, methods);
  replace({
    createBuffer: (descriptor: GPUBufferDescriptor) => {
      if (!label.test(descriptor.label ?? "")) return createBuffer.call(on, descriptor);
      failed = true;
      pushErrorScope.call(on, "validation");
      // Too large for the device: a buffer that is invalid, as after a failed allocation.
      const invalid = createBuffer.call(on, { ...descriptor, size: on.limits.maxBufferSize + 4, mappedAtCreation: false });
      void popErrorScope.call(on);
      if (descriptor.mappedAtCreation) {
        const memory = new ArrayBuffer(descriptor.size);
        Object.assign(invalid, { getMappedRange: () => memory, unmap: () => {} });
      }
      return invalid;
    },
    pushErrorScope: (filter: GPUErrorFilter) => {
      scopes.push(filter);
      pushErrorScope.call(on, filter);
    },
    popErrorScope: async () => {
      const filter = scopes.pop();
      const memory = filter === "out-of-memory" && failed;
      if (memory) failed = false;
      const error = await popErrorScope.call(on);
      return memory ? { message: "no memory left" } : error;
    },
  });
  return () => replace({ createBuffer, pushErrorScope, popErrorScope });
}
