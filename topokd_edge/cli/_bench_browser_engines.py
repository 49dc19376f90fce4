"""The student in other engines of a browser: what the page is given of them, and what its answers become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from topokd_bench.browser import TARGET
from topokd_bench.browser.engines import Engine, read_engine
from topokd_bench.browser.post import BuildRun, Post
from topokd_bench.local import Measured
from topokd_bench.remote import Proof
from topokd_bench.result import BenchResult
from topokd_bench.windows import HeldOut

from topokd_edge.bundle import Bundle, ModelFile
from topokd_edge.cli._bench_browser_results import timed_fields
from topokd_edge.cli._bench_candidates import student_proof
from topokd_edge.errors import BadInputError, UsageError

MODELS = {
    "onnxruntime-web": {"float32": "onnx", "int8": "onnx"},
    "litert.js": {"float32": "tflite", "int8": "tflite-float-io"},
}
"""Target of the model file by precision; LiteRT.js takes no int8 input (@litertjs/core 2.5.3)."""
SCRIPT = "engine.js"
SELF_TEST = "selftest.f32"


@dataclass(frozen=True)
class EngineRun:
    """One model file in one engine."""

    engine: Engine
    item: ModelFile
    content: bytes
    proof: Proof

    @property
    def name(self) -> str:
        """As the page posts it."""
        return f"{self.engine.runtime} {self.item.precision}"


@dataclass(frozen=True)
class EnginePlan:
    """What runs beside the WebAssembly student; nothing unless asked for.

    Attributes
    ----------
    runs
        In the order the page takes them.
    notes
        What the bundle has no model file for.
    """

    runs: tuple[EngineRun, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the runs."""
        return tuple(run.name for run in self.runs)


def plan(bundle: Bundle, folders: Sequence[Path]) -> EnginePlan:
    """Read the engines in `folders`, and the model files of the bundle that they take.

    Raises
    ------
    UsageError
        When an engine is named twice.
    BadInputError
        When a folder is not the package of an engine; when the bundle has no model file for it.
    """
    runs: list[EngineRun] = []
    notes = []
    seen: dict[str, Path] = {}
    for folder in folders:
        engine = read_engine(folder)
        if engine.runtime in seen:
            raise UsageError(
                f"--engine {folder}: {engine.runtime} was named already, as {seen[engine.runtime]}",
                hint="give each engine once",
            )
        seen[engine.runtime] = folder
        found, lacking = _runs(bundle, engine)
        if not found:
            raise BadInputError(f"{bundle.folder}: {'; '.join(lacking)}", hint=_hint(engine))
        runs += found
        notes += [f"{one} (export with --targets {MODELS[engine.runtime]['int8']})" for one in lacking]
    return EnginePlan(tuple(runs), tuple(notes))


def _runs(bundle: Bundle, engine: Engine) -> tuple[list[EngineRun], list[str]]:
    """Return a run for each precision, and what is said of those without a model file."""
    runs, lacking = [], []
    for precision, target in MODELS[engine.runtime].items():
        files = [one for one in bundle.manifest.files if (one.target, one.precision) == (target, precision)]
        proof = student_proof(bundle, bundle.folder / files[0].path) if files else None
        if proof is None:
            lacking.append(f"{engine.runtime}: no {precision} file of target {target} in this bundle")
        else:
            content = (bundle.folder / files[0].path).read_bytes()
            runs.append(EngineRun(engine, files[0], content, proof))
    return runs, lacking


def _hint(engine: Engine) -> str:
    targets = ",".join(dict.fromkeys(MODELS[engine.runtime].values()))
    return f"export it again: topokd-edge export RUN --out BUNDLE --targets {targets},wasm"


def contents(bundle: Bundle, asked: EnginePlan) -> dict[str, bytes]:
    """Return what the page is given for the engines, by name; beside the scripts of the page itself."""
    if not asked.runs:
        return {}
    given = {SELF_TEST: np.moveaxis(bundle.self_test()["x"], 1, 2).astype("<f4").tobytes()}
    for run in asked.runs:
        given |= run.engine.files
        given[run.item.path] = run.content
    return given


def scripts(asked: EnginePlan) -> list[str]:
    """Return the files of the page itself that drive the engines."""
    return list(dict.fromkeys([SCRIPT, *(run.engine.adapter for run in asked.runs)])) if asked.runs else []


def config(bundle: Bundle, asked: EnginePlan) -> list[dict[str, Any]]:
    """Return what the page must know of each run."""
    from topokd_export.wasm.writer import integrity

    scale = bundle.manifest.normalisation
    return [
        {
            "build": run.name,
            "adapter": run.engine.adapter,
            "model": run.item.path,
            "hash": integrity(run.content),
            "scale": {"mean": list(scale.mean), "std": list(scale.std)},
            "proof": {
                "expected": run.proof.expected.tolist(),
                "tolerance": run.proof.tolerance,
                "agreement": run.proof.agreement,
            },
        }
        for run in asked.runs
    ]


def engine_results(
    bundle: Bundle, post: Post, asked: EnginePlan, given: set[str], held_out: HeldOut | None
) -> list[Measured]:
    """Return a result for each run: with figures when its self-test is right, else with why not.

    Parameters
    ----------
    given
        Names of the files that the browser asked for.
    """
    done = {one.build: one for one in post.builds}
    return [_measured(bundle, post.facts, run, done[run.name], given, held_out) for run in asked.runs]


def _measured(
    bundle: Bundle,
    facts: Mapping[str, Any],
    run: EngineRun,
    done: BuildRun,
    given: set[str],
    held_out: HeldOut | None,
) -> Measured:
    fetched = {name: len(content) for name, content in run.engine.files.items() if name in given}
    error = done.error or why_wrong(run.proof, done)
    own: dict[str, Any] = {} if error else timed_fields(bundle, facts, done, held_out)
    device = own.pop("device", dict(facts))
    result = BenchResult(
        target=TARGET,
        basis="measured",
        pipeline=f"student.{run.item.precision}",
        runtime=run.engine.runtime,
        flash_bytes=run.item.bytes + sum(fetched.values()),
        model_bytes=run.item.bytes,
        macs=bundle.manifest.macs,
        versions=dict(run.engine.versions),
        device={**device, "engine_files": fetched},
        error=error,
        **own,
    )
    return Measured(result)


def why_wrong(proof: Proof, done: BuildRun) -> str:
    """Return what is wrong with the answers to the self-test; empty when they are right and were timed."""
    from topokd_export.verify import compare

    found = compare(done.build, done.logits, proof.expected, proof.tolerance, proof.agreement)
    if not found["ok"]:
        return (
            f"its self-test is wrong: largest difference {found['max_abs_diff']:.3g}, at most "
            f"{proof.tolerance:.3g}; agreement {found['agreement']:.3f}, at least {proof.agreement:g}"
        )
    return "" if done.timing.runs else "the browser timed nothing, though its self-test is right"
