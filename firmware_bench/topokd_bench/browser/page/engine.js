// The student in another engine, in a fresh worker: proven first, then timed. Messages as of worker.js.
// A classic worker and not a module: LiteRT.js loads its parts by importScripts, which modules do not have.

// Engines compile while they fetch. Fetched whole first, the one can be told from the other.
const fetchPiecewise = self.fetch;
self.fetch = async (...asked) => {
  const response = await fetchPiecewise(...asked);
  return new Response(await response.arrayBuffer(), { status: response.status, headers: response.headers });
};

/** Milliseconds of fetching since `begin`; engines fetch one file after another. */
const fetching = (begin) =>
  performance
    .getEntriesByType("resource")
    .filter((entry) => entry.startTime >= begin)
    .reduce((sum, entry) => sum + entry.duration, 0);

async function run({ build, adapter, model, hash, scale, proof, ...wanted }) {
  const [{ info }, { windows }] = await Promise.all([import("./student.js"), import("./selftest.js")]);
  const { floats, isSound, measure, refuseOdd, top } = await import("./measure.js");
  const shape = [info.length, info.channels.length];
  const vectors = await floats("selftest.f32", shape[0] * shape[1]);
  const begin = performance.now();
  const response = await fetch(`./${model}`, { integrity: hash });
  const { open } = await import(`./${adapter}`);
  const answer = await open(new Uint8Array(await response.arrayBuffer()), shape);
  await answer(vectors[0]);
  const [spent, download] = [performance.now() - begin, fetching(begin)];
  const logits = [];
  for (const vector of vectors) logits.push([...(await answer(vector))]);
  refuseOdd(logits, proof.expected);
  const normalised = (value, at) => (value - scale.mean[at % shape[1]]) / scale.std[at % shape[1]];
  const student = {
    async classify(window) {
      const logits = await answer(Float32Array.from(window, normalised));
      return { logits, class: top(logits) };
    },
  };
  const found = { build, logits: logits.flat(), cold_ms: Math.max(0, spent - download), download_ms: download, error: "" };
  return { ...found, ...(await measure(student, windows(), isSound(logits, proof), wanted)) };
}

onmessage = async ({ data }) => {
  try {
    postMessage({ done: await run(data) });
  } catch (error) {
    postMessage({ error: String(error?.message ?? error) });
  }
};
