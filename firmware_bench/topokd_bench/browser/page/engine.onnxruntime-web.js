// onnxruntime-web, on one thread: a normalised window, one sample after another, to its logits.
import * as ort from "./onnxruntime-web/ort.wasm.min.mjs";

export async function open(model, [length, channels]) {
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = new URL("./onnxruntime-web/", import.meta.url).href;
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  const [input] = session.inputNames;
  const [output] = session.outputNames;
  return async (window) => {
    const turned = new Float32Array(window.length);
    for (let at = 0; at < window.length; at++)
      turned[(at % channels) * length + Math.floor(at / channels)] = window[at];
    const found = await session.run({ [input]: new ort.Tensor("float32", turned, [1, channels, length]) });
    return found[output].data;
  };
}
