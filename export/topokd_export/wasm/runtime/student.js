// A student made by topokd-edge. No dependency; student.d.ts describes every function.
//
//     import { Student } from "./student.js";
//     const student = await Student.load();
//     student.push([x, y, z]);   // null, or { class, name, probability, probabilities, logits }

/** What the student takes and answers, and the hashes of its WebAssembly. */
export const info = @INFO@;

const SIMD_PROBE = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11];

/** Whether this machine's WebAssembly has 128-bit vectors. */
export const hasSimd = () => WebAssembly.validate(new Uint8Array(SIMD_PROBE));

async function integrity(bytes) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return "sha256-" + btoa(String.fromCharCode(...hash));
}

function row(values, size, where) {
  if (!(Array.isArray(values) || ArrayBuffer.isView(values)) || values.length !== size)
    throw new Error(`${where}: expected ${size} numbers, got ${values?.length ?? typeof values}`);
  return values;
}

export class Student {
  #wasm;
  #samples;
  #logits;

  static async load(base = new URL(".", import.meta.url), { simd = hasSimd(), step } = {}) {
    const { file, hash } = info.builds[simd ? "simd" : "scalar"];
    const url = new URL(file, new URL(base, globalThis.location?.href));
    // Pages that are neither https nor localhost have no crypto.subtle: there the browser checks while fetching.
    const options = globalThis.crypto?.subtle ? {} : { integrity: hash };
    const response = await fetch(url, options).catch((error) => {
      throw new Error(`${url}: not there, or not the WebAssembly of this student`, { cause: error });
    });
    if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
    return Student.from(await response.arrayBuffer(), { step });
  }

  static async from(bytes, { step } = {}) {
    if (globalThis.crypto?.subtle) {
      const hash = await integrity(bytes);
      if (!Object.values(info.builds).some((build) => build.hash === hash))
        throw new Error(`not the WebAssembly of this student (${hash}): take both files from one bundle`);
    }
    const { instance } = await WebAssembly.instantiate(bytes, {});
    return new Student(instance.exports, step);
  }

  constructor(wasm, step) {
    this.#wasm = wasm;
    this.#samples = new Float32Array(wasm.memory.buffer, wasm.samples(), info.length * info.channels.length);
    this.#logits = new Int8Array(wasm.memory.buffer, wasm.logits(), info.classes.length);
    this.reset(step);
  }

  reset(step = info.step) {
    if (!Number.isInteger(step) || step < 1 || step > info.length)
      throw new Error(`step ${step}: expected a whole number from 1 to ${info.length}`);
    this.#wasm.reset(step);
  }

  gap() {
    this.#wasm.gap();
  }

  push(samples) {
    return this.pushAll(samples).at(-1) ?? null;
  }

  pushAll(samples) {
    const values = this.#checked(samples);
    const answers = [];
    for (let at = 0; at < values.length; at += info.channels.length) {
      this.#samples.set(values.subarray(at, at + info.channels.length));
      if (this.#wasm.push() === 1) answers.push(this.#answer());
    }
    return answers;
  }

  classify(window) {
    const values = this.#checked(window);
    row(values, this.#samples.length, `a window of ${info.length} samples`);
    this.#samples.set(values);
    this.#wasm.classify();
    return this.#answer();
  }

  /** Samples, one after another or one array each, as float32; all are checked before any is taken. */
  #checked(samples) {
    const channels = info.channels.length;
    const nested = Array.isArray(samples) && typeof samples[0] === "object";
    const flat = nested ? samples.flatMap((one, at) => [...row(one, channels, `sample ${at}`)]) : samples;
    if (flat?.length === undefined || typeof flat === "string" || flat.length % channels)
      throw new Error(`expected whole samples of ${channels} channels, got ${flat?.length ?? typeof flat} values`);
    const values = Float32Array.from(flat);
    const bad = values.findIndex((value, at) => !Number.isFinite(value) || typeof flat[at] !== "number");
    if (bad >= 0)
      throw new Error(
        `sample ${Math.floor(bad / channels)}, channel ${info.channels[bad % channels]}: ${flat[bad]}, ` +
          "expected a finite number; call gap() where samples were lost",
      );
    return values;
  }

  #answer() {
    const logits = Float32Array.from(this.#logits, (level) => (level - info.zeroPoint) * info.scale);
    const top = Math.max(...logits);
    const weights = Array.from(logits, (logit) => Math.exp(logit - top));
    const sum = weights.reduce((a, b) => a + b);
    const probabilities = weights.map((weight) => weight / sum);
    const label = logits.indexOf(top);
    return { class: label, name: info.classes[label], probability: probabilities[label], probabilities, logits };
  }
}
