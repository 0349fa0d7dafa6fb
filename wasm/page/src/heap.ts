// How much WebAssembly memory does ONNX Runtime hold?
//
// It does not say so itself, and its memory never shrinks. It is the one here that is shared, so
// each shared memory is noted as it is made: import this before ONNX Runtime.

const shared: WebAssembly.Memory[] = [];

WebAssembly.Memory = class extends WebAssembly.Memory {
  constructor(descriptor: WebAssembly.MemoryDescriptor) {
    super(descriptor);
    if (descriptor.shared) shared.push(this);
  }
};

/** Returns the bytes of all shared WebAssembly memories of this worker. */
export function heap(): number {
  return shared.reduce((size, memory) => size + memory.buffer.byteLength, 0);
}
