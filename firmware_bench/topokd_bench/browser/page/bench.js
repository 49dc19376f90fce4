// The page: runs each build in a worker, shows how it goes, posts the result, then offers live answers.
import { Student, hasSimd, info } from "./student.js";
import { begin, whyNot } from "./live.js";

const at = (id) => document.getElementById(id);
const SHOWN_CLASSES = 5;
const digits = (value) => (value < 10 ? value.toFixed(3) : value.toFixed(1));
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

/** One build in a worker of its own. */
function runBuild(build, config) {
  return new Promise((resolve, reject) => {
    const worker = new Worker("./worker.js", { type: "module" });
    const end = (finish, value) => (worker.terminate(), finish(value));
    worker.onerror = (event) => end(reject, new Error(event.message || "this browser runs no module in a worker"));
    worker.onmessage = ({ data }) => {
      if (data.progress) {
        at("progress").value = data.progress.share;
        state("running", `Timing the ${build} build: ${digits(data.progress.p50)} ms a window so far.`);
      } else if (data.done) end(resolve, data.done);
      else end(reject, new Error(data.error));
    };
    worker.postMessage({ build, seconds: config.seconds, windows: config.windows });
  });
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
  row.append(...[run.build, rank(0.5), rank(0.95), rank(0.99), run.cold_ms.toFixed(0)].map((text) => element("td", text)));
  at("rows").append(row);
  at("results").hidden = false;
}

async function post(config, builds, error) {
  const body = JSON.stringify({ bundle: config.bundle, facts: facts(), builds, error: error.slice(0, 500) });
  const response = await fetch("./result", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (!response.ok) throw new Error(`the bench did not take the result: ${await response.text()}`);
}

/** Measure and post; returns a student for live answers, loaded before: afterwards nobody serves any more. */
async function measure(config) {
  const builds = [];
  let problem = "";
  let student;
  try {
    student = await Student.load();
    for (const build of hasSimd() ? ["simd", "scalar"] : ["scalar"]) {
      state("running", `Checking the ${build} build against its self-test.`);
      at("progress").value = 0;
      const run = await runBuild(build, config);
      builds.push(run);
      showBuild(run);
    }
  } catch (error) {
    problem = error.message || "unknown";
  }
  timing = false;
  at("progress").value = 1;
  await post(config, problem ? [] : builds, problem.replace(/[^\x20-\x7e]/g, " "));
  if (problem) throw new Error(problem);
  if (builds.some((run) => !run.times_ms.length)) throw new Error("the self-test gave other answers than the export");
  state("pass", "Done: every self-test answer as exported, and the result is sent. The bench has ended.");
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
