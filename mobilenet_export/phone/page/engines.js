// The runtimes: each opens a file and returns what runs it. `run` is from input to output, both in the page's memory.

const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);

export const hasSimd = () => typeof WebAssembly === "object" && WebAssembly.validate(SIMD);

/** The GPU that WebGPU would use; null without one, and always on plain http. */
export async function findGpu() {
  try {
    return (await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" })) ?? null;
  } catch {
    return null;
  }
}

async function openOnnx(bytes, { threads }) {
  const ort = await import("onnxruntime-web");
  ort.env.wasm.wasmPaths = "/ort/";
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
  const [name] = session.inputNames, [result] = session.outputNames;
  return {
    async run(values, shape) {
      const tensor = new ort.Tensor(values instanceof Uint8Array ? "uint8" : "float32", values, shape);
      const outputs = await session.run({ [name]: tensor });
      return outputs[result].data;
    },
    close: () => session.release(),
  };
}

let litert = null;

async function openTflite(bytes, { threads, provider }) {
  const library = await import("@litertjs/core");
  litert ??= library.loadLiteRt("/litert/", threads > 1 ? { threads: true } : {});
  await litert;
  const options = provider === "webgpu"
    ? { accelerator: "webgpu", gpuOptions: { precision: "fp32" } }
    : { accelerator: "wasm", cpuOptions: { numThreads: threads } };
  const model = await library.loadAndCompile(bytes, options);
  if (provider === "webgpu" && !model.isFullyAccelerated) {
    model.delete();
    throw new Error("the GPU does not take all of this file");
  }
  return {
    async run(values, shape) {
      const tensor = new library.Tensor(values, shape);
      try {
        const outputs = await model.run([tensor]);
        const data = await outputs[0].data();
        outputs.forEach((output) => output.delete());
        return data;
      } finally {
        tensor.delete();
      }
    },
    close: () => model.delete(),
  };
}

const OPENERS = { "onnxruntime-web": openOnnx, "litert.js": openTflite };

/** Every file with what it can run in here: [{file, provider}]. */
export const placements = (files, hasGpu) =>
  files.flatMap((file) => (file.runtime === "litert.js" && hasGpu ? ["wasm", "webgpu"] : ["wasm"]).map((provider) => ({ file, provider })));

export const open = (file, bytes, setup) => OPENERS[file.runtime](bytes, setup);
