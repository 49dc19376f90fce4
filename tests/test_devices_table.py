"""The table of devices: from answers of bench to Markdown, JSON and a figure that stands alone."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import made_bench as made
import pytest

from topokd_edge.files import write_json


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("devices")


def test_table_json_and_figure(devices: ModuleType, tmp_path: Path) -> None:
    write_json(tmp_path / "laptop.json", made.answer(made.measured("local", made.LOCAL)))
    boards = made.answer(
        made.on_core(), made.on_board("nrf52840"), made.on_board("rp2040", tda_ram=412_000), [made.NPU]
    )
    write_json(tmp_path / "boards.json", boards)
    out = tmp_path / "devices.md"
    devices.main([str(out), str(tmp_path / "laptop.json"), str(tmp_path / "boards.json")])
    text = out.read_text("utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 17 and {len(row) for row in rows} == {9}
    order = list(dict.fromkeys(row[0].split()[0] for row in rows))
    assert order == ["mcu:nrf52840", "mcu:rp2040", "mcu:cortex-m4", "npu:ethos-u55-128", "local"]
    cell = {(row[0].split()[0], row[1]): row for row in rows}
    assert cell["local", "Student, int8"][2:6] == [
        "measured",
        "litert",
        "187 µs / 262 µs",
        "90.5 % (86.5 to 94.5 %)",
    ]
    assert " to " in cell["mcu:nrf52840", "TDA pipeline"][4]
    assert "needs 412,300 bytes" in cell["mcu:rp2040", "TDA pipeline"][4]
    assert cell["mcu:cortex-m4", "TDA pipeline"][4] == "151 M instructions"
    assert cell["npu:ethos-u55-128", "Student, int8"][4].endswith("(one number, the model tells no range)")
    assert "On the Nordic nRF52840" in text and "about 36 times as long" in text
    for row in boards["results"]:
        for key in ("latency_range_ms", "energy_uj"):
            assert row[key] is None or row[key]["basis"] in text
    assert f"python benchmarks/devices.py {out} laptop.json boards.json" in text
    assert "--on mcu:cortex-m4,mcu:nrf52840,mcu:rp2040,npu:ethos-u55-128 --out boards.json" in text
    assert len(json.loads((tmp_path / "devices.json").read_text())["results"]) == 17
    picture = (tmp_path / "devices.svg").read_text("utf-8")
    assert "devices.svg" in text and "mcu:nrf52840, Nordic nRF52840 (board, modelled)" in picture


def test_cores_alone_have_no_figure(devices: ModuleType, tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", made.answer(made.on_core()))
    devices.main([str(tmp_path / "d.md"), str(tmp_path / "a.json")])
    assert not (tmp_path / "d.svg").exists() and "d.svg" not in (tmp_path / "d.md").read_text("utf-8")
