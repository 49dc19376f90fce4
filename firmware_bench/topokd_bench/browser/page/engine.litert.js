// LiteRT.js on the CPU, on one thread: a normalised window, one sample after another, to its logits.
import { Tensor, loadAndCompile, loadLiteRt } from "./litert/index.js";

const there = new URL("./litert/wasm/", import.meta.url).href;

export async function open(model, [length, channels]) {
  self.Module = { locateFile: (name) => there + name }; // its loader reads this; else it looks beside the worker
  await loadLiteRt(there);
  const compiled = await loadAndCompile(model, { accelerator: "wasm" });
  return async (window) => {
    const input = new Tensor(window, [1, 1, length, channels]);
    const [output] = await compiled.run(input);
    const logits = Float32Array.from(output.toTypedArray());
    input.delete();
    output.delete();
    return logits;
  };
}
