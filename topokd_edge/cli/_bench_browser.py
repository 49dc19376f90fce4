"""A bench in a phone's browser: the page is served, its code shown, its one result checked and believed."""

from __future__ import annotations

import io
import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from topokd_bench.browser import TARGET
from topokd_bench.browser.handler import MOST_BYTES
from topokd_bench.browser.post import Post, PostError, Wanted, read_post
from topokd_bench.browser.server import PageServer, Served, serving
from topokd_bench.local import Measured
from topokd_bench.windows import HeldOut

from topokd_edge.bundle import Bundle
from topokd_edge.cli import _bench_browser_engines as others
from topokd_edge.cli import _bench_browser_floats, console
from topokd_edge.cli._bench_browser_engines import EnginePlan, engine_results
from topokd_edge.cli._bench_browser_floats import FloatPlan, float_results
from topokd_edge.cli._bench_browser_results import FOLDER, results
from topokd_edge.cli._bench_motion import motion_plan
from topokd_edge.cli._bench_network import cannot_listen, check_address, own_address
from topokd_edge.cli._bench_plan import find_run, student_windows
from topokd_edge.errors import BadInputError, DeviceError, UsageError
from topokd_edge.progress import Progress
from topokd_edge.run import Run

MOST_WINDOW_BYTES = 64 << 20
MOST_WINDOWS = 20_000
"""Held-out windows given to a phone, at most: their answers fit the post."""
ENGINE_POST_BYTES = 1 << 17
"""What the post may have more for each run in another engine or float pipeline, as it may for a build."""
_BUNDLE_FILES = ("student.js", "selftest.js", "student.simd.wasm", "student.scalar.wasm")
_PAGE_FILES = ("index.html", "style.css", "bench.js", "worker.js", "measure.js", "motion.js", "live.js")
_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "wasm": "application/wasm",
}
_OTHER_KIND = "application/octet-stream"


@dataclass(frozen=True)
class Where:
    """Where to listen, and for how long.

    Attributes
    ----------
    address
        The one IP address; None is this machine's in its network.
    port
        0 is any free one.
    wait
        Seconds until the result must be there.
    """

    address: str | None = None
    port: int = 0
    wait: float = 600.0


def run_there(
    bundle: Bundle,
    run: Path | None,
    windows: int | None,
    seconds: float,
    where: Where,
    progress: Progress,
    engines: EnginePlan | None = None,
) -> tuple[list[Measured], tuple[str, ...], tuple[str, ...]]:
    """Bench in the browser that opens the page; return its results, whose windows it had, and notes.

    Held-out windows are recordings of people and the page is not encrypted: they go out only when `windows`
    says how many.

    Raises
    ------
    UsageError
        As `measure`; or when windows are asked for and the run is not found.
    """
    page_files(bundle)
    found = find_run(bundle, run)
    some, subjects = (None, ()) if windows is None else _held_out(bundle, found, windows)
    count = None if some is None else len(some.x)
    floats = _bench_browser_floats.plan(bundle, found, count, progress, sure=run is not None)
    return measure(bundle, some, seconds, where, progress, engines, floats), subjects, floats.notes


def _held_out(bundle: Bundle, run: Run | None, windows: int) -> tuple[HeldOut, tuple[str, ...]]:
    """Return the held-out windows that the page is given, and whose they are."""
    held_out, subjects, _ = student_windows(bundle, run)
    if held_out.y is None:
        raise UsageError(
            f"--windows {windows}: the run of this bundle was not found", hint="give it with --run"
        )
    most = max(1, MOST_WINDOW_BYTES // (4 * held_out.x[0].size))
    return held_out.some(min(windows, most, MOST_WINDOWS)), subjects


def measure(
    bundle: Bundle,
    held_out: HeldOut | None,
    seconds: float,
    where: Where,
    progress: Progress,
    engines: EnginePlan | None = None,
    floats: FloatPlan | None = None,
) -> list[Measured]:
    """Serve the page, wait for its result and return one for each build, engine and pipeline it ran.

    Parameters
    ----------
    bundle
        With WebAssembly.
    held_out
        Windows with their truth that the phone classifies; None for no accuracy.
    seconds
        Time to spend timing each build.
    where
        Where to listen, and for how long.
    progress
        Told of the phone.
    engines
        Other engines that run the student too; None for none.
    floats
        Float pipelines that run beside it; None for none.

    Raises
    ------
    BadInputError
        When the bundle has no WebAssembly.
    UsageError, MissingError
        When the address or port cannot be listened on; when this machine is in no network.
    CheckFailedError
        When a logit of the self-test differs from the bundle's.
    DeviceError
        When nothing came in time, or what came was too large, malformed or says that it failed.
    """
    engines, floats = engines or EnginePlan(), floats or FloatPlan()
    files = {
        **page_files(bundle, engines, floats),
        **_made_files(bundle, seconds, held_out, engines, floats),
    }
    wanted = Wanted(
        bundle.digest,
        len(bundle.self_test()["x"]),
        len(bundle.manifest.class_names),
        0 if held_out is None else len(held_out.x),
        engines.names,
        floats.wanted,
    )
    most_bytes = MOST_BYTES + ENGINE_POST_BYTES * (len(engines.runs) + len(floats.runs))
    address = where.address or own_address()
    check_address(address)
    with ExitStack() as stack:
        try:
            server = stack.enter_context(serving(address, where.port, files, most_bytes))
        except OSError as error:
            raise cannot_listen(error, address, where.port) from None
        _invite(server)
        body = _await(server, where.wait, progress)
    progress(TARGET, 2, 2, "result is there")
    post = _read(body, wanted)
    own = results(bundle, post, held_out)
    own += engine_results(bundle, post, engines, server.given, held_out)
    return own + float_results(bundle, post, floats)


def page_files(
    bundle: Bundle, engines: EnginePlan | None = None, floats: FloatPlan | None = None
) -> dict[str, Served]:
    """Return the page, the bundle's files, those of engines and pipelines, by name; the page itself is "".

    Raises
    ------
    BadInputError
        When the bundle has no WebAssembly.
    """
    engines, floats = engines or EnginePlan(), floats or FloatPlan()
    lacking = [name for name in _BUNDLE_FILES if not (bundle.folder / FOLDER / name).is_file()]
    if lacking or not any(item.target == "wasm" for item in bundle.manifest.files):
        raise BadInputError(
            f"{bundle.folder}: no WebAssembly in this bundle, which --on {TARGET} needs",
            hint="export it again: topokd-edge export RUN --out BUNDLE --targets onnx,tflite,wasm",
        )
    page = resources.files("topokd_bench.browser") / "page"
    scripts = (*others.scripts(engines), *_bench_browser_floats.scripts(floats))
    contents = {name: (page / name).read_bytes() for name in (*_PAGE_FILES, *scripts)}
    contents |= {name: (bundle.folder / FOLDER / name).read_bytes() for name in _BUNDLE_FILES}
    contents |= others.contents(bundle, engines) | _bench_browser_floats.contents(floats)
    contents[""] = contents.pop("index.html")
    return {
        name: Served(_KINDS.get(name.rpartition(".")[2] or "html", _OTHER_KIND), content)
        for name, content in contents.items()
    }


def _made_files(
    bundle: Bundle,
    seconds: float,
    held_out: HeldOut | None,
    engines: EnginePlan,
    floats: FloatPlan | None = None,
) -> dict[str, Served]:
    """Return what is made for this bench: what the page must know, and the held-out windows."""
    config = {
        "name": bundle.folder.resolve().name,
        "bundle": bundle.digest,
        "seconds": seconds,
        "windows": 0 if held_out is None else len(held_out.x),
        "motion": motion_plan(bundle.manifest),
        "engines": others.config(bundle, engines),
        "pipelines": _bench_browser_floats.config(floats or FloatPlan()),
    }
    made = {"config.json": Served("application/json", json.dumps(config, allow_nan=False).encode())}
    if held_out is not None:
        samples = np.moveaxis(held_out.x, 1, 2).astype("<f4")
        made["windows.f32"] = Served(_OTHER_KIND, samples.tobytes())
    return made


def _invite(server: PageServer) -> None:
    """Show the address, and its QR code where there is the package that draws it."""
    console.note(f"open on the phone: {server.url}")
    try:
        import segno
    except ModuleNotFoundError:
        console.note("(with `pip install segno` its QR code is shown here)")
        return
    drawn = io.StringIO()
    segno.make(server.url, error="m", micro=False).terminal(drawn, compact=True)
    console.note(drawn.getvalue())


def _await(server: PageServer, seconds: float, progress: Progress) -> bytes | str:
    """Wait for the post, and tell when the page is opened.

    Raises
    ------
    DeviceError
        When none came in time; says how far it came.
    """
    progress(TARGET, 0, 2, "waiting for the phone")
    stop, told = time.monotonic() + seconds, False
    while (left := stop - time.monotonic()) > 0:
        body = server.wait(min(0.2, left))
        if body is not None:
            return body
        if server.opened_by and not told:
            told = True
            progress(TARGET, 1, 2, f"opened by {server.opened_by}")
    if server.opened_by:
        why, hint = (
            "the page was opened and sent no result",
            "keep the page in front and the screen on; it says what it does",
        )
    elif server.refused:
        why = f"{server.refused} requests had a wrong address, none the right one"
        hint = "scan the code of this bench, an earlier one is no longer valid"
    else:
        why, hint = (
            "no browser opened the page",
            "is the phone in the same network, and does a firewall let it in?",
        )
    raise DeviceError(f"{TARGET}: no result within {seconds:g} s: {why}", hint=hint)


def _read(body: bytes | str, wanted: Wanted) -> Post:
    hint = "run the bench again; an old copy of the page may have been open"
    if isinstance(body, str):
        raise DeviceError(f"{TARGET}: the browser sent {body}", hint=hint)
    try:
        post = read_post(body, wanted)
    except PostError as error:
        raise DeviceError(
            f"{TARGET}: the browser sent a malformed result", problems=error.problems[:20], hint=hint
        ) from None
    if post.error:
        raise DeviceError(
            f"{TARGET}: the browser could not run the student: {post.error}",
            hint="it needs WebAssembly and modules in workers: Chrome 80, Safari 15, Firefox 114 or later",
        )
    return post
