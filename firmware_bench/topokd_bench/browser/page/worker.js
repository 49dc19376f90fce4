// One build in a fresh worker: proven first, then timed. Messages: { progress }, then { done } or { error }.
import { measure } from "./measure.js";

async function run({ build, ...wanted }) {
  const { Student, info } = await import("./student.js");
  const { selfTest, windows } = await import("./selftest.js");
  const { file, hash } = info.builds[build];
  const asked = performance.now();
  const response = await fetch(`./${file}`, { integrity: hash });
  const bytes = await response.arrayBuffer();
  const begin = performance.now();
  const all = windows();
  const student = await Student.from(bytes);
  student.classify(all[0]);
  const loaded = performance.now();
  const logits = all.flatMap((window) => [...student.classify(window).logits]);
  const found = { build, logits, cold_ms: loaded - begin, download_ms: begin - asked, error: "" };
  return { ...found, ...(await measure(student, all, selfTest(student).wrong === 0, wanted)) };
}

onmessage = async ({ data }) => {
  try {
    postMessage({ done: await run(data) });
  } catch (error) {
    postMessage({ error: String(error?.message ?? error) });
  }
};
