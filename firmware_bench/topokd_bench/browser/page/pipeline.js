// A float pipeline in a fresh worker, raw windows in: proven first, then timed. Messages as of worker.js.
import { floats, isSound, measure, refuseOdd, top } from "./measure.js";
import { hasSimd } from "./student.js";

/** One module; `window` and `logits` are arrays in its memory. */
async function load(bytes, size, classes) {
  const { exports: wasm } = (await WebAssembly.instantiate(bytes, {})).instance;
  const samples = new Float32Array(wasm.memory.buffer, wasm.window(), size);
  const answer = new Float32Array(wasm.memory.buffer, wasm.logits(), classes);
  return {
    classify(window) {
      samples.set(window);
      const status = wasm.classify();
      if (status) throw new Error(`the pipeline answered ${status}`);
      const logits = Array.from(answer);
      return { logits, class: top(logits) };
    },
  };
}

async function run({ build, kernels, vectors, size, proof, ...wanted }) {
  const { file, hash } = kernels[hasSimd() ? "simd" : "scalar"];
  const all = await floats(vectors, size);
  const asked = performance.now();
  const response = await fetch(`./${file}`, { integrity: hash });
  const bytes = await response.arrayBuffer();
  const begin = performance.now();
  const pipeline = await load(bytes, size, proof.expected[0].length);
  pipeline.classify(all[0]);
  const loaded = performance.now();
  const logits = all.map((window) => pipeline.classify(window).logits);
  refuseOdd(logits, proof.expected);
  const found = { build, logits: logits.flat(), cold_ms: loaded - begin, download_ms: begin - asked, error: "" };
  return { ...found, ...(await measure(pipeline, all, isSound(logits, proof), wanted)) };
}

onmessage = async ({ data }) => {
  try {
    postMessage({ done: await run(data) });
  } catch (error) {
    postMessage({ error: String(error?.message ?? error) });
  }
};
