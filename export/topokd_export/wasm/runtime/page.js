// The page: a self-test, and answers for samples that are pasted, dropped or opened as CSV.
import { Student, hasSimd, info } from "./student.js";
import { parse } from "./csv.js";
import { selfTest, windows } from "./selftest.js";

const at = (id) => document.getElementById(id);
const channels = info.channels.length;
const COLOURS = ["#1463c4", "#d9730d", "#2f8f5b", "#8e44ad", "#c0392b", "#7f8c8d"];
const SHOWN_CLASSES = 5;
const TIMED_PASSES = 20;

let student;
let running = 0;

function show(answer) {
  at("answer").textContent = answer.name;
  const likely = answer.probabilities.map((share, n) => [share, n]).sort(([a], [b]) => b - a);
  at("bars").replaceChildren(
    ...likely.slice(0, SHOWN_CLASSES).map(([share, n]) => {
      const bar = document.createElement("div");
      bar.className = "bar";
      const [name, meter, number] = ["span", "meter", "span"].map((tag) => document.createElement(tag));
      name.textContent = name.title = info.classes[n];
      meter.value = share;
      number.textContent = `${(100 * share).toFixed(0)} %`;
      bar.append(name, meter, number);
      return bar;
    }),
  );
}

function plot(rows) {
  const canvas = at("plot");
  const ratio = devicePixelRatio || 1;
  const [width, height] = [(canvas.width = canvas.clientWidth * ratio), (canvas.height = canvas.clientHeight * ratio)];
  const pen = canvas.getContext("2d");
  pen.lineWidth = 1.3 * ratio;
  for (let channel = 0; channel < channels; channel++) {
    const values = rows.map((row) => row[channel]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    pen.strokeStyle = COLOURS[channel % COLOURS.length];
    pen.beginPath();
    values.forEach((value, n) => {
      const y = (high - value) / (high - low || 1);
      pen.lineTo((n / (values.length - 1)) * width, height * (0.08 + 0.84 * y));
    });
    pen.stroke();
  }
}

function log(answer, stop) {
  const line = document.createElement("li");
  const [name, when] = [document.createElement("span"), document.createElement("span")];
  name.textContent = `${answer.name} (${(100 * answer.probability).toFixed(0)} %)`;
  when.textContent = `${((stop - info.length) / info.rateHz).toFixed(1)} to ${(stop / info.rateHz).toFixed(1)} s`;
  line.append(name, when);
  at("log").prepend(line);
}

/** Push every row, as fast as the pace says; a later call ends an earlier one. */
async function stream(rows, pace) {
  const mine = ++running;
  const begin = performance.now();
  let answers = 0;
  student.reset();
  at("log").replaceChildren();
  for (let n = 0; n < rows.length && mine === running; n++) {
    const due = pace > 0 ? begin + (1000 * n) / (info.rateHz * pace) : 0;
    const early = due - performance.now();
    if (early > 4 || n % 2000 === 1999) await new Promise((resolve) => setTimeout(resolve, Math.max(early, 0)));
    const answer = student.push(rows[n]);
    if (answer) {
      answers += 1;
      show(answer);
      plot(rows.slice(n + 1 - info.length, n + 1));
      log(answer, n + 1);
    }
  }
  if (!answers && mine === running)
    throw new Error(`${rows.length} samples are less than a window of ${info.length}: no answer yet.`);
}

async function attempt(work) {
  at("error").textContent = "";
  try {
    await work();
  } catch (error) {
    at("error").textContent = error.message;
  }
}

const csv = (rows) => [info.channels.join(","), ...rows.map((row) => row.join(","))].join("\n");

function example() {
  const rows = windows().flatMap((window) =>
    Array.from({ length: info.length }, (_, n) => [...window.subarray(n * channels, (n + 1) * channels)]),
  );
  at("csv").value = csv(rows.map((row) => row.map((value) => Number(value.toPrecision(6)))));
}

async function fromFile(file) {
  at("csv").value = await file.text();
  await start();
}

const start = () => attempt(() => stream(parse(at("csv").value), Number(at("pace").value)));

function listen() {
  at("run").onclick = start;
  at("example").onclick = () => {
    example();
    start();
  };
  at("file").onchange = (event) => attempt(() => fromFile(event.target.files[0]));
  const area = at("csv");
  area.ondragover = (event) => (event.preventDefault(), area.classList.add("over"));
  area.ondragleave = () => area.classList.remove("over");
  area.ondrop = (event) => {
    area.classList.remove("over");
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    attempt(() => fromFile(event.dataTransfer.files[0]));
  };
  at("run").disabled = at("example").disabled = false;
}

/** Milliseconds of a window in each pass over all of them: one alone is too short for a browser's clock. */
function timed() {
  const all = windows();
  return Array.from({ length: TIMED_PASSES }, () => {
    const begin = performance.now();
    for (const window of all) student.classify(window);
    return (performance.now() - begin) / all.length;
  });
}

function test() {
  const { windows: count, wrong } = selfTest(student);
  const middle = timed().sort((a, b) => a - b)[TIMED_PASSES / 2];
  const line = at("test");
  line.dataset.state = line.className = wrong ? "fail" : "pass";
  line.textContent = wrong
    ? `FAIL: ${wrong} of ${count} windows answered otherwise than at export. Do not use it here.`
    : `PASS: ${count} windows, every logit as exported.`;
  at("speed").textContent =
    `${hasSimd() ? "SIMD" : "scalar"} build: ${middle.toFixed(2)} ms for a window (p50 of ${TIMED_PASSES} passes, one thread).`;
  line.dataset.milliseconds = middle;
}

async function main() {
  const seconds = (info.length / info.rateHz).toPrecision(3);
  const named = info.channels.map((name, n) => `${name} [${info.units[n]}]`).join(", ");
  at("about").textContent +=
    ` ${info.classes.length} classes; a window is ${seconds} s, and there is an answer every half of one.`;
  at("wanted").textContent = `CSV, ${info.rateHz} samples a second: ${named}. Other columns are passed over.`;
  at("csv").placeholder = `${info.channels.join(",")}\nPaste samples, or drop a file.`;
  try {
    student = await Student.load();
  } catch (error) {
    at("test").textContent = `FAIL: ${error.message}`;
    at("test").dataset.state = at("test").className = "fail";
    return;
  }
  test();
  listen();
}

await main();
