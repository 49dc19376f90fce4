"""docs/predict.md: its options are complete, its Python runs, its refusal is the one that comes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from export_cases import make_run
from topokd_export.export import export_student
from typer.main import get_command

from topokd_edge.bundle import BadInputError, Int8Numbers, Manifest, ModelFile, Normalisation
from topokd_edge.cli import app
from topokd_edge.data.clean import Cleaning
from topokd_edge.data.importers import IMPORTERS
from topokd_edge.data.stream import Stream
from topokd_edge.predict.fit import plan_for
from topokd_edge.predict.write import COLUMNS

DOC = (Path(__file__).parents[1] / "docs" / "predict.md").read_text(encoding="utf-8")


def test_every_option_has_a_row() -> None:
    options = {
        name
        for item in get_command(app).commands["predict"].params  # type: ignore[attr-defined]
        for name in item.opts
        if name.startswith("--") and name != "--help"
    }
    rows = " ".join(line.split("|")[1] for line in DOC.splitlines() if line.startswith("| `--"))
    assert set(re.findall(r"--[a-z-]+", rows)) == options


def test_every_column_is_named() -> None:
    assert {name for name in COLUMNS if f"`{name}`" not in DOC} == set()


def test_the_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path)
    export_student(run, 1, 0, tmp_path / "bundle", int8=False, targets=("onnx",))
    (block,) = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    samples = np.concatenate([window.T for window in run.windows().x[:2]])
    exec(compile(block, "predict.md", "exec"), {"chunks": np.array_split(samples, 7)})
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["0", "50"],
        ["25", "75"],
        ["50", "100"],
    ]


def test_the_refusal_shown_is_the_one_that_comes() -> None:
    manifest = Manifest(
        channels=2,
        length=50,
        rate_hz=25.0,
        channel_names=("acc_x", "gyro_x"),
        units=("m/s2", "rad/s"),
        normalisation=Normalisation((0.0, 0.0), (1.0, 1.0)),
        class_names=("sit",),
        files=(ModelFile("onnx", "float32", "x.onnx", 1, ""),),
        int8=Int8Numbers(1.0, 0, 1.0, 0),
        macs=1,
        params=1,
        self_test="x",
    )
    watch = Stream(
        source="watch.bin",
        path=None,
        channels=("acc_x", "acc_y", "acc_z", "light", "button", "temperature"),
        units=("g", "g", "g", "lux", "1", "degC"),
        rate_hz=50.0,
        chunks=lambda: iter(()),
    )
    plan = plan_for(manifest, manifest.channel_names, None, resample=False)
    with pytest.raises(BadInputError) as caught:
        plan(IMPORTERS["geneactiv"], (watch,), Cleaning())
    assert f"error: {caught.value}\n" in DOC
