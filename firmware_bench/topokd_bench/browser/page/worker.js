// One build in a fresh worker: proven first, then timed. Messages: { progress }, then { done } or { error }.
const WARM_MS = 300;
const WARM_PASSES = 3;
const LEAST_TIMES = 50;
const MOST_TIMES = 2000;
const STEPS_PER_TIME = 20; // so that the clock's step is at most a twentieth of what is timed
const SHOWN_EVERY_MS = 150;

/** The smallest step the clock makes: browsers coarsen it, each in its own way. */
function clockStep() {
  const steps = [];
  for (let last = performance.now(); steps.length < 20; ) {
    const now = performance.now();
    if (now > last) steps.push(now - last);
    last = now;
  }
  return Math.min(...steps);
}

/** Pass over the windows until the engine has compiled its best; what a window took in the quickest pass. */
function warmUp(student, windows) {
  const begin = performance.now();
  let [passes, each] = [0, Infinity];
  while (passes < WARM_PASSES || performance.now() - begin < WARM_MS) {
    const start = performance.now();
    for (const window of windows) student.classify(window);
    each = Math.min(each, (performance.now() - start) / windows.length);
    passes += 1;
  }
  return { warmup: passes * windows.length, each: Math.max(each, 1e-4) };
}

/** Milliseconds a window, each time the mean over enough windows for the clock. */
async function time(student, windows, seconds, each, clock) {
  const perTime = Math.max(1, Math.ceil(Math.max(STEPS_PER_TIME * clock, (seconds * 1000) / MOST_TIMES) / each));
  const times = [];
  const begin = performance.now();
  let shown = begin;
  for (let at = 0; times.length < MOST_TIMES; ) {
    const start = performance.now();
    const spent = start - begin;
    if (times.length >= LEAST_TIMES && spent >= seconds * 1000) break;
    for (let n = 0; n < perTime; n++) student.classify(windows[at++ % windows.length]);
    times.push((performance.now() - start) / perTime);
    if (start - shown > SHOWN_EVERY_MS) {
      shown = start;
      const middle = [...times].sort((a, b) => a - b);
      postMessage({ progress: { share: Math.min(1, spent / (seconds * 1000)), p50: middle[times.length >> 1] } });
    }
  }
  return { times_ms: times.map((one) => Number(one.toFixed(6))), windows_per_time: perTime };
}

async function heldOut(student, info, count) {
  if (!count) return [];
  const response = await fetch("./windows.f32");
  if (!response.ok) throw new Error(`windows.f32: ${response.status}`);
  const all = new Float32Array(await response.arrayBuffer());
  const size = info.length * info.channels.length;
  return Array.from({ length: count }, (_, n) => student.classify(all.subarray(n * size, (n + 1) * size)).class);
}

async function run({ build, seconds, windows: count }) {
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
  const found = { build, logits, cold_ms: loaded - begin, download_ms: begin - asked, clock_ms: clockStep() };
  const none = { times_ms: [], windows_per_time: 1, warmup: 0, predicted: Array(count).fill(0) };
  if (selfTest(student).wrong > 0) return { ...found, ...none };
  const { warmup, each } = warmUp(student, all);
  const timed = await time(student, all, seconds, each, found.clock_ms);
  return { ...found, ...timed, warmup, predicted: await heldOut(student, info, count) };
}

onmessage = async ({ data }) => {
  try {
    postMessage({ done: await run(data) });
  } catch (error) {
    postMessage({ error: String(error?.message ?? error) });
  }
};
