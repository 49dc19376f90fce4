// What every worker does with a student that has loaded: time it if it is sound, and classify held-out windows.
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
async function warmUp(student, windows) {
  const begin = performance.now();
  let [passes, each] = [0, Infinity];
  while (passes < WARM_PASSES || performance.now() - begin < WARM_MS) {
    const start = performance.now();
    for (const window of windows) await student.classify(window);
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
    for (let n = 0; n < perTime; n++) await student.classify(windows[at++ % windows.length]);
    times.push((performance.now() - start) / perTime);
    if (start - shown > SHOWN_EVERY_MS) {
      shown = start;
      const middle = [...times].sort((a, b) => a - b);
      postMessage({ progress: { share: Math.min(1, spent / (seconds * 1000)), p50: middle[times.length >> 1] } });
    }
  }
  return { times_ms: times.map((one) => Number(one.toFixed(6))), windows_per_time: perTime };
}

export const top = (logits) => logits.indexOf(Math.max(...logits));

/** Refuse what are not logits: they could not be posted as numbers. */
export function refuseOdd(all, expected) {
  const odd = all.findIndex((logits, n) => logits.length !== expected[n].length || !logits.every(Number.isFinite));
  if (odd >= 0) throw new Error(`answered [${all[odd].slice(0, 5).map((one) => one.toPrecision(3))}], expected ${expected[odd].length} finite logits`);
}

/** Whether every logit is near enough to the expected, and enough windows get the same class. */
export function isSound(all, { expected, tolerance, agreement }) {
  const near = all.every((logits, n) => logits.every((logit, at) => Math.abs(logit - expected[n][at]) <= tolerance));
  return near && all.filter((logits, n) => top(logits) === top(expected[n])).length >= agreement * all.length;
}

/** A file of little-endian float32, as arrays of `size`. */
export async function floats(name, size) {
  const response = await fetch(`./${name}`);
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  const all = new Float32Array(await response.arrayBuffer());
  return Array.from({ length: all.length / size }, (_, n) => all.subarray(n * size, (n + 1) * size));
}

/** Classes of `count` held-out windows, spread evenly over the file. */
async function heldOut(student, size, count, file) {
  if (!count) return [];
  const all = await floats(file, size);
  const classes = [];
  for (let n = 0; n < count; n++)
    classes.push((await student.classify(all[Math.floor((n * all.length) / count)])).class);
  return classes;
}

/** The part of a result that is the same for every engine; `classify` may answer at once or by a promise. */
export async function measure(student, windows, sound, { seconds, windows: count, file = "windows.f32" }) {
  const clock_ms = clockStep();
  if (!sound) return { clock_ms, times_ms: [], windows_per_time: 1, warmup: 0, predicted: Array(count).fill(0) };
  const { warmup, each } = await warmUp(student, windows);
  const timed = await time(student, windows, seconds, each, clock_ms);
  return { clock_ms, warmup, ...timed, predicted: await heldOut(student, windows[0].length, count, file) };
}
