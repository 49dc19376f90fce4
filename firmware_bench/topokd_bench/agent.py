"""What runs on a device reached over SSH: this one file, alone, with Python 3.9 or newer.

It imports nothing of the project: it is pushed into a folder of its own, answers commands on standard input
with JSON lines on standard output, and removes the folder when it is told to stop or the connection ends.
Commands are `put` (a file follows) and `run` (measure one model in one runtime, in a child process, so that a
runtime that dies of an illegal instruction is an answer). numpy is needed by every runtime but `c`.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import importlib
import json
import os
import platform
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CPU = Path("/sys/devices/system/cpu")
_TEMPERATURE = Path("/sys/class/thermal/thermal_zone0/temp")
_PACKAGES = {"litert": "ai-edge-litert", "tflite-runtime": "tflite-runtime", "onnxruntime": "onnxruntime"}
_MODULES = {"litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}
_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "asimddp", "i8mm", "amx_int8"}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_SLICE = {"warmup": 0, "runs": 1}
_SILENT = {"ORT_DISABLE_TELEMETRY": "1"}
"""ONNX Runtime else leaves a name of the user in the cache folder, and reports; see its docs/Privacy.md."""
_CHUNK = 1 << 20


class ConnectionEndedError(Exception):
    """The host is gone."""


# --- the device


def text_of(path: Path) -> str:
    """Return the content of a small file, stripped; empty when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""


def number_of(path: Path) -> int | None:
    """Return the number a small file holds; None when there is none."""
    text = text_of(path)
    return int(text) if text.isdigit() else None


def cpu_info(*keys: str) -> str:
    """Return the first value in /proc/cpuinfo that has one of `keys`."""
    for line in text_of(Path("/proc/cpuinfo")).splitlines():
        key, _, value = line.partition(":")
        if key.strip() in keys:
            return value.strip()
    return ""


def describe() -> dict[str, Any]:
    """Return the facts of `topokd_bench.device.describe`, and those only such a device has."""
    board = text_of(Path("/proc/device-tree/model"))
    flags = set(cpu_info("flags", "Features").split())
    return {
        "cpu": cpu_info("model name", "Model") or board or platform.machine(),
        "board": board or None,
        "int8_dot_products": sorted(_DOT_PRODUCTS & flags),
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "governor": text_of(_CPU / "cpu0/cpufreq/scaling_governor") or None,
        "max_khz": number_of(_CPU / "cpu0/cpufreq/cpuinfo_max_freq"),
        "os": platform.system() + " " + platform.release(),
        "uname": " ".join(platform.uname()),
        "python": platform.python_version(),
    }


def state() -> dict[str, Any]:
    """Return what changes while a device works: clock, temperature, load, throttling."""
    millidegrees = number_of(_TEMPERATURE)
    counts = [number_of(path) for path in _CPU.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    known = [count for count in counts if count is not None]
    return {
        "khz": number_of(_CPU / f"cpu{quickest(1)[0]}/cpufreq/scaling_cur_freq"),
        "temperature_c": None if millidegrees is None else millidegrees / 1000,
        "load": load_average(),
        "throttle_count": sum(known) if known else None,
        "get_throttled": get_throttled(),
    }


def load_average() -> float | None:
    """Return the load of the last minute; None where /proc is hidden."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def get_throttled() -> int | None:
    """Return the bits of `vcgencmd get_throttled`, which only a Raspberry Pi has."""
    try:
        child = subprocess.run(
            ["vcgencmd", "get_throttled"],  # noqa: S607
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.fullmatch(r"throttled=0x([0-9a-fA-F]{1,8})", child.stdout.strip())
    return int(found.group(1), 16) if found else None


def peak_memory() -> int:
    """Return the peak resident memory of this process since it was started, in bytes."""
    for line in text_of(Path("/proc/self/status")).splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def busy_seconds() -> float | None:
    """Return the seconds all cores together have worked since boot."""
    words = text_of(Path("/proc/stat")).partition("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu":
        return None
    ticks = [int(word) for word in words[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


# --- models


class TFLite:
    """A .tflite file in LiteRT or tflite-runtime."""

    def __init__(self, job: dict[str, Any], path: str) -> None:
        module = importlib.import_module(_MODULES[job["runtime"]])
        self.np = importlib.import_module("numpy")
        self.interpreter = module.Interpreter(model_path=path, num_threads=job["threads"])
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]
        self.output = self.interpreter.get_output_details()[0]

    def run(self, window: Any) -> Any:
        """Return the logits of a normalised window, float32 (channels, length)."""
        np = self.np
        x = np.ascontiguousarray(window.T).reshape(self.input["shape"])
        if self.input["dtype"] is np.int8:
            scale, zero = self.input["quantization"]
            x = np.clip(np.rint(x / np.float32(scale)) + np.float32(zero), -128, 127).astype(np.int8)
        self.interpreter.set_tensor(self.input["index"], x)
        self.interpreter.invoke()
        y = self.interpreter.get_tensor(self.output["index"]).reshape(-1)
        if y.dtype == np.int8:
            scale, zero = self.output["quantization"]
            y = (y.astype(np.float32) - np.float32(zero)) * np.float32(scale)
        return y


class Onnx:
    """A .onnx file in ONNX Runtime."""

    def __init__(self, job: dict[str, Any], path: str) -> None:
        ort = importlib.import_module("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = job["threads"], 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    def run(self, window: Any) -> Any:
        """Return the logits of a normalised window, float32 (channels, length)."""
        return self.session.run(None, {self.name: window[None]})[0].reshape(-1)


# --- measuring, in a child


def work(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Measure one model: prove it, time it, classify windows with it."""
    if job["runtime"] == "c":
        return work_c(folder, job)
    try:
        np = importlib.import_module("numpy")
    except ImportError as error:
        return {"missing": str(error)}
    shape = job["shape"]
    cores = pin(job)
    baseline = peak_memory()
    raw = np.fromfile(str(folder / job["timing"]), "<f4").reshape(-1, *shape)
    column = (len(job["mean"]), 1)
    mean = np.array(job["mean"], np.float32).reshape(column)
    std = np.array(job["std"], np.float32).reshape(column)

    def start() -> tuple[Any, list[int]]:
        begin = time.perf_counter_ns()
        model = (Onnx if job["runtime"] == "onnxruntime" else TFLite)(job, str(folder / job["model"]))
        loaded = time.perf_counter_ns()
        model.run((raw[0][job["channels"]] - mean) / std)
        return model, [loaded - begin, time.perf_counter_ns() - loaded]

    try:
        model, cold = start()
    except ImportError as error:
        return {"missing": str(error)}
    if job["cold_only"]:
        return {"cold": [*cold, sum(start()[1])]}

    def logits(window: Any) -> Any:
        return model.run((window[job["channels"]] - mean) / std)

    def run_once(index: int) -> Any:
        return logits(raw[index % len(raw)])

    tests = np.fromfile(str(folder / job["test"]), "<f4").reshape(-1, len(job["channels"]), shape[1])
    proof = prove(job, folder, [model.run(window).tolist() for window in tests])
    if "mismatch" in proof:
        return proof
    timed = times(run_once, job)
    peak = peak_memory()
    timed.update(paced(run_once, job))
    timed.update(sustained(lambda seconds: times(run_once, {**job, **_SLICE, "seconds": seconds})["ns"], job))
    held_out = np.memmap(str(folder / job["windows"]), "<f4", "r") if job["windows"] else raw[:0]
    return {
        **proof,
        **timed,
        "cold_ns": sum(cold),
        "pinned_cores": cores,
        "ram_bytes": peak,
        "ram_baseline_bytes": baseline,
        "labels": [int(logits(window).argmax()) for window in held_out.reshape(-1, *shape)],
        "versions": {"numpy": np.__version__, job["runtime"]: version(_PACKAGES[job["runtime"]])},
    }


def version(package: str) -> str:
    """Return the version of an installed package; empty when it does not say."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def times(run_once: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Time single calls, and see what else used the cores meanwhile."""
    clock = time.perf_counter_ns
    everyone, cpu, wall = busy_seconds(), time.process_time(), time.perf_counter()
    for index in range(job["warmup"]):
        run_once(index)
    found: list[int] = []
    stop = clock() + int(job["seconds"] * 1e9)
    while len(found) < job["runs"] or clock() < stop:
        begin = clock()
        run_once(len(found))
        found.append(clock() - begin)
    return {"ns": found, **shares(everyone, time.process_time() - cpu, time.perf_counter() - wall)}


def paced(run_once: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Time calls that begin `every` seconds apart, asleep between them."""
    if not job["paced"]:
        return {}
    found: list[int] = []
    before, everyone, cpu, wall = state(), busy_seconds(), time.process_time(), time.perf_counter()
    due = time.monotonic()
    for index in range(job["paced"]["runs"]):
        due = max(due + job["paced"]["every"], time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        begin = time.perf_counter_ns()
        run_once(index)
        found.append(time.perf_counter_ns() - begin)
    share = shares(everyone, time.process_time() - cpu, time.perf_counter() - wall)
    return {"paced": {"ns": found, "before": before, "after": state(), **share}}


def sustained(slice_of: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Call back to back for minutes, in ten slices; of each, its number of calls, median, and state after."""
    if not job["sustained"]:
        return {}
    before, slices, ns = state(), [], []
    for _ in range(10):
        ns = sorted(slice_of(job["sustained"] / 10))
        slices.append({"calls": len(ns), "p50_ns": ns[(len(ns) - 1) // 2], "state": state()})
    return {"sustained": {"before": before, "slices": slices, "ns": ns[:: 1 + len(ns) // 10000]}}


def pin(job: dict[str, Any]) -> list[int] | None:
    """Keep this process on as many cores as it has threads, if it shall; return which."""
    if not job["pin"] or not hasattr(os, "sched_setaffinity"):
        return None
    os.sched_setaffinity(0, quickest(job["threads"]))
    return sorted(os.sched_getaffinity(0))


def quickest(count: int) -> list[int]:
    """Return the quickest cores this process may use, and of alike ones the last."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))

    def quickness(core: int) -> tuple[int, int]:
        own = _CPU / f"cpu{core}"
        return number_of(own / "cpu_capacity") or number_of(own / "cpufreq/cpuinfo_max_freq") or 0, core

    return sorted(sorted(usable, key=quickness)[-count:])


def shares(before: float | None, own: float, passed: float) -> dict[str, Any]:
    """Return the cores this process had, and those that others used."""
    after = busy_seconds()
    others = None if before is None or after is None else max(0.0, (after - before - own) / passed)
    return {"cpu_share": own / passed, "others_share": others}


def prove(job: dict[str, Any], folder: Path, got: list[list[float]]) -> dict[str, Any]:
    """Compare logits of the self-test vectors with those expected."""
    flat = array.array("f", (folder / job["expected"]).read_bytes())
    classes = job["classes"]
    expected = [flat[at : at + classes].tolist() for at in range(0, len(flat), classes)]
    if [len(row) for row in got] != [len(row) for row in expected]:
        return {"mismatch": "other logits than expected: number of windows or classes"}
    worst, alike = 0.0, 0
    for index, row in enumerate(got):
        differences = [abs(value - expected[index][at]) for at, value in enumerate(row)]
        worst = max(worst, *[d if d == d else float("inf") for d in differences])
        alike += row.index(max(row)) == expected[index].index(max(expected[index]))
    share = alike / len(expected)
    if worst > job["tolerance"] or share < job["agreement"]:
        return {
            "mismatch": f"logits differ by up to {worst:g} ({job['tolerance']:g} allowed), {share:.0%} alike"
        }
    return {"vectors": len(expected), "max_abs_diff": worst}


# --- the C program, in a child


def work_c(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Measure the C program; it needs no numpy."""
    program = folder / job["model"]
    program.chmod(0o700)
    cores = pin(job)
    timing = interleaved(folder / job["timing"], job)
    begin = time.perf_counter_ns()
    run_c(program, ["label"], timing[: len(timing) // job["timing_count"]])
    cold = [0, time.perf_counter_ns() - begin]
    if job["cold_only"]:
        return {"cold": [*cold, cold[1]]}
    answers = run_c(program, [job["verb"]], (folder / job["test"]).read_bytes())
    zero, scale = job["zero_point"], job["scale"]
    proof = prove(job, folder, [[(float(word) - zero) * scale for word in row.split()] for row in answers])
    if "mismatch" in proof:
        return proof
    everyone, cpu, wall = busy_seconds(), children_seconds(), time.perf_counter()
    arguments = ["time", str(job["warmup"]), str(job["runs"]), str(job["seconds"])]
    ram, *ns = [int(line) for line in run_c(program, arguments, timing)]
    share = shares(everyone, children_seconds() - cpu, time.perf_counter() - wall)
    lasting = sustained(
        lambda seconds: [int(line) for line in run_c(program, ["time", "0", "1", str(seconds)], timing)[1:]],
        job,
    )
    held_out = interleaved(folder / job["windows"], job) if job["windows"] else b""
    return {
        **proof,
        **share,
        **lasting,
        "ns": ns,
        "cold_ns": sum(cold),
        "pinned_cores": cores,
        "ram_bytes": ram * 1024 or None,
        "ram_baseline_bytes": None,
        "labels": [int(line) for line in run_c(program, ["label"], held_out)] if held_out else [],
        "versions": {},
    }


def children_seconds() -> float:
    """Return the CPU seconds of ended children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_c(program: Path, arguments: list[str], data: bytes) -> list[str]:
    """Run the C program and return its lines; a signal it died of becomes this process's own."""
    child = subprocess.run([str(program), *arguments], input=data, stdout=subprocess.PIPE, check=False)
    if child.returncode < 0:
        signal.signal(-child.returncode, signal.SIG_DFL)
        os.kill(os.getpid(), -child.returncode)
    if child.returncode != 0:
        raise RuntimeError(f"the C program ended with status {child.returncode}")
    return child.stdout.decode("ascii").splitlines()


def interleaved(path: Path, job: dict[str, Any]) -> bytes:
    """Turn windows (n, channels, length) into samples of the student's channels, (n, length, channels)."""
    (channels, length), own = job["shape"], job["channels"]
    flat = array.array("f", path.read_bytes())
    out = array.array("f", bytes(4 * len(flat) // channels * len(own)))
    each = length * len(own)
    for window in range(len(flat) // (channels * length)):
        for place, channel in enumerate(own):
            start = (window * channels + channel) * length
            out[window * each + place : (window + 1) * each : len(own)] = flat[start : start + length]
    return out.tobytes()


def child_main(folder: Path) -> int:
    """Measure the job of standard input and answer on standard output, which runtimes must not write to."""
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        document = work(folder, json.load(sys.stdin))
    except Exception as error:  # whatever a runtime raises becomes the answer
        document = {"error": f"{type(error).__name__}: {error}"}
    with os.fdopen(answer, "w", encoding="utf-8") as stream:
        json.dump(document, stream)
    return 0


# --- the connection


def say(**words: Any) -> None:
    """Answer the host."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def put(folder: Path, command: dict[str, Any]) -> None:
    """Take a file; on a full disk the rest is read and dropped, so that the host hears why."""
    name, left = str(command["name"]), int(command["bytes"])
    if not _NAME.fullmatch(name):
        raise ValueError(f"file name {name!r}")
    problem = ""
    with (folder / name).open("wb", buffering=0) as out:
        while left:
            part = sys.stdin.buffer.read(min(left, _CHUNK))
            if not part:
                raise ConnectionEndedError
            left -= len(part)
            try:
                while part and not problem:
                    part = part[out.write(part) :]
            except OSError as error:
                problem = f"{error.strerror} ({shutil.disk_usage(folder).free} bytes free in {folder.parent})"
    if problem:
        (folder / name).unlink()
        return say(event="refused", why="disk", text=problem)
    same = hashlib.sha256((folder / name).read_bytes()).hexdigest() == command["sha256"]
    return say(event="stored") if same else say(event="refused", why="hash", text=name)


def run(folder: Path, job: dict[str, Any]) -> None:
    """Measure in a child; the host says nothing meanwhile, so whatever can be read is the end."""
    before = state()
    log = folder / "child.log"
    with log.open("wb") as errors, (folder / "answer.json").open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-B", __file__, str(folder), "child"],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=errors,
            start_new_session=True,
            env={
                **_SILENT,
                **os.environ,
                "TMPDIR": str(folder),
                **dict.fromkeys(_THREADS, str(job["threads"])),
            },
        )
        try:
            late = wait(child, json.dumps(job).encode(), job["timeout"])
        finally:
            stop(child)
    answer = (
        {"error": f"no answer within {job['timeout']:g} s, stopped"} if late else read_answer(folder, child)
    )
    say(event="measured", answer=answer, before=before, after=state())


def wait(child: subprocess.Popen[bytes], job: bytes, timeout: float) -> bool:
    """Wait for a child; tell whether it took too long."""
    try:
        with child.stdin or open(os.devnull, "wb") as stream:  # noqa: PTH123
            stream.write(job)
    except BrokenPipeError:
        pass
    end = time.monotonic() + timeout
    while child.poll() is None:
        if select.select([0], [], [], 0.05)[0]:
            raise ConnectionEndedError
        if time.monotonic() > end:
            return True
    return False


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a child and what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def read_answer(folder: Path, child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Return what a child answered, or why it did not."""
    if child.returncode < 0:
        return {"died": signal.Signals(-child.returncode).name}
    try:
        answer = json.loads((folder / "answer.json").read_text("utf-8"))
        return dict(answer)
    except (OSError, ValueError):
        last = (text_of(folder / "child.log").splitlines() or ["no message"])[-1]
        return {"error": f"the worker ended with status {child.returncode} ({last[:500]})"}


def serve(folder: Path) -> None:
    """Answer commands until the connection ends."""
    say(event="hello", folder=str(folder), device=describe())
    for line in sys.stdin.buffer:
        command = json.loads(line)
        if command["command"] == "stop":
            return
        (put if command["command"] == "put" else run)(folder, command)


def main() -> int:
    """Serve, and leave nothing behind."""
    folder = Path(sys.argv[1])
    if sys.argv[2:] == ["child"]:
        return child_main(folder)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    try:
        serve(folder)
    except (ConnectionEndedError, BrokenPipeError):
        pass
    finally:
        shutil.rmtree(str(folder), ignore_errors=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
