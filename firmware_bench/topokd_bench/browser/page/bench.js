// The page: runs each build in a worker, shows how it goes, posts the result, then offers live answers.
import { Student, hasSimd, info } from "./student.js";
import { begin, whyNot } from "./live.js";

const at = (id) => document.getElementById(id);
const BUILDS = ["simd", "scalar"];
const SHOWN_CLASSES = 5;
const SILENT_MS = 120_000;
const digits = (value) => (value < 10 ? value.toFixed(3) : value.toFixed(1));
const printable = (text) => text.replace(/[^\x20-\x7e]/g, " ").slice(0, 500);
let hidden = false;
let timing = true;

document.addEventListener("visibilitychange", () => (hidden ||= timing && document.hidden));

function state(name, text) {
  at("state").dataset.state = at("state").className = name;
  at("state").textContent = text;
}

function element(tag, text = "", name = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = name;
  return made;
}

/** One run in a worker of its own. */
function inWorker(worker, name, message) {
  return new Promise((resolve, reject) => {
    const end = (finish, value) => (clearTimeout(silent), worker.terminate(), finish(value));
    const silent = setTimeout(() => end(reject, new Error(`nothing was heard of it for ${SILENT_MS / 1000} s`)), SILENT_MS);
    worker.onerror = (event) => end(reject, new Error(event.message || "this browser runs no module in a worker"));
    worker.onmessage = ({ data }) => {
      clearTimeout(silent);
      if (data.progress) {
        at("progress").value = data.progress.share;
        state("running", `Timing ${name}: ${digits(data.progress.p50)} ms a window so far.`);
      } else if (data.done) end(resolve, data.done);
      else end(reject, new Error(data.error));
    };
    worker.postMessage(message);
  });
}

const runBuild = (build, wanted) =>
  inWorker(new Worker("./worker.js", { type: "module" }), `the ${build} build`, { build, ...wanted });

/** What cannot be run beside the builds is a result too: another engine, a float pipeline. */
async function runBeside(worker, message) {
  try {
    return await inWorker(worker, message.build, message);
  } catch (error) {
    const none = { logits: [], times_ms: [], warmup: 0, cold_ms: 0, download_ms: 0, windows_per_time: 1, clock_ms: 0 };
    return { build: message.build, ...none, predicted: [], error: printable(error.message || "unknown") };
  }
}

function facts() {
  return {
    user_agent: navigator.userAgent.slice(0, 500),
    cores: navigator.hardwareConcurrency ?? null,
    memory_gb: navigator.deviceMemory ?? null,
    screen: `${screen.width}x${screen.height} at ${devicePixelRatio}`,
    secure_context: isSecureContext,
    cross_origin_isolated: Boolean(globalThis.crossOriginIsolated),
    hidden_while_timed: hidden,
  };
}

function showBuild(run) {
  const sorted = [...run.times_ms].sort((a, b) => a - b);
  const rank = (share) => (sorted.length ? digits(sorted[Math.ceil(share * sorted.length) - 1]) : "-");
  const row = element("tr");
  const cold = sorted.length ? run.cold_ms.toFixed(0) : "-";
  const name = BUILDS.includes(run.build) ? `int8, ${run.build}` : run.build;
  row.append(...[name, rank(0.5), rank(0.95), rank(0.99), cold].map((text) => element("td", text)));
  at("rows").append(row);
  at("results").hidden = false;
}

async function post(config, builds, error) {
  const body = JSON.stringify({ bundle: config.bundle, facts: facts(), builds, error });
  const response = await fetch("./result", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (!response.ok) throw new Error(`the bench did not take the result: ${await response.text()}`);
}

/** Every build, then every other engine that was asked for, then the float pipelines. */
async function runAll(config, builds) {
  const wanted = { seconds: config.seconds, windows: config.windows };
  for (const build of hasSimd() ? BUILDS : BUILDS.slice(1)) {
    begins(`the ${build} build`);
    builds.push(await runBuild(build, wanted));
    showBuild(builds.at(-1));
  }
  for (const engine of config.engines) {
    begins(engine.build);
    builds.push(await runBeside(new Worker("./engine.js"), { ...engine, ...wanted }));
    showBuild(builds.at(-1));
  }
  for (const pipeline of config.pipelines) {
    begins(pipeline.build);
    builds.push(await runBeside(new Worker("./pipeline.js", { type: "module" }), { ...wanted, ...pipeline }));
    showBuild(builds.at(-1));
  }
}

function begins(name) {
  state("running", `Checking ${name} against its self-test.`);
  at("progress").value = 0;
}

/** Measure and post; returns a student for live answers, loaded before: afterwards nobody serves any more. */
async function measure(config) {
  const builds = [];
  let problem = "";
  let student;
  try {
    student = await Student.load();
    await runAll(config, builds);
  } catch (error) {
    problem = error.message || "unknown";
  }
  timing = false;
  at("progress").value = 1;
  await post(config, problem ? [] : builds, printable(problem));
  if (problem) throw new Error(problem);
  const others = [...config.engines, ...config.pipelines].map((one) => one.build);
  const untimed = builds.filter((run) => !run.times_ms.length);
  if (untimed.some((run) => !others.includes(run.build)))
    throw new Error("the self-test gave other answers than the export");
  const failed = untimed.map((run) => `${run.build}: ${run.error || "other answers than the export"}`);
  const said = failed.length ? `Done, without ${failed.join("; ")}.` : "Done: every self-test answer as exported.";
  state("pass", `${said} The result is sent, the bench has ended.`);
  return student;
}

function showAnswer({ answer, values, seen, problem }) {
  if (problem) at("liveNote").textContent = problem;
  if (values) {
    const rate = seen.events > 1 ? (1000 * (seen.events - 1)) / (seen.last - seen.first) : 0;
    at("liveNote").textContent =
      `${info.channels.map((name, n) => `${name} ${values[n].toFixed(2)} ${info.units[n]}`).join(", ")}. ` +
      `Events: ${rate.toFixed(0)} a second, resampled to ${info.rateHz}; ${seen.answers} answers.` +
      (seen.events > 60 && rate < 0.9 * info.rateHz ? " Fewer than the student was trained on: it hears less." : "");
  }
  if (!answer) return;
  at("answer").textContent = answer.name;
  const likely = answer.probabilities.map((share, n) => [share, n]).sort(([a], [b]) => b - a);
  at("bars").replaceChildren(
    ...likely.slice(0, SHOWN_CLASSES).map(([share, n]) => {
      const bar = element("div", "", "bar");
      const meter = element("meter");
      meter.value = share;
      bar.append(element("span", info.classes[n]), meter, element("span", `${(100 * share).toFixed(0)} %`));
      return bar;
    }),
  );
}

function offerLive(student, plan) {
  const why = whyNot(plan);
  at("liveNote").textContent = why ?? `${plan.note} Nothing of it is sent.`;
  at("liveButtons").hidden = Boolean(why);
  let stop = null;
  at("live").onclick = async () => {
    if (stop) {
      stop();
      stop = null;
      at("live").textContent = "Start";
      return;
    }
    try {
      at("answer").textContent = "listening";
      stop = await begin(student, plan, showAnswer, () => at("turned").checked);
      at("live").textContent = "Stop";
    } catch (error) {
      at("liveNote").textContent = error.message;
    }
  };
}

async function main() {
  const config = await (await fetch("./config.json")).json();
  at("about").textContent = `${config.name}: ${info.classes.length} classes, windows of ${(info.length / info.rateHz).toPrecision(3)} s, int8. Keep this page in front and the screen on.`;
  try {
    offerLive(await measure(config), config.motion);
  } catch (error) {
    state("fail", `Failed: ${error.message}`);
    at("liveNote").textContent = "Not after a failure.";
  }
}

await main();
