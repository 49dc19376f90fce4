// node run.mjs STUDENT_JS WASM SAMPLES: prints the logits of each window as JSON; SAMPLES holds float32 numbers.
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [script, wasm, samples] = process.argv.slice(2);
const { Student, info } = await import(pathToFileURL(script));
const student = await Student.from(await readFile(wasm));
const bytes = await readFile(samples);
const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
const size = info.length * info.channels.length;
const logits = [];
for (let at = 0; at < values.length; at += size)
  logits.push([...student.classify(values.subarray(at, at + size)).logits]);
console.log(JSON.stringify(logits));
