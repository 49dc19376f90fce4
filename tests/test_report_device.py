"""The device page: its first sentence, ranges with their basis, what does not fit, several files."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import made_bench as made
import pytest
from export_cases import make_run as export_run
from test_report import Page
from topokd_bench import documents
from topokd_bench.result import BenchResult
from topokd_export.export import export_student

from topokd_edge.cli._bench_documents import read_documents
from topokd_edge.errors import BadInputError
from topokd_edge.report import device, device_names, device_rows, device_words, inputs, verdict
from topokd_edge.report.page import render

FRAME = """{% extends "base.html.j2" %}{% block body %}{% include "device.html.j2" %}{% endblock %}"""


def page_of(bench: dict[str, Any]) -> str:
    """Render the section alone, in the page's own frame."""
    from jinja2 import Environment

    whole = Environment.get_template

    def get(self: Environment, name: Any, *rest: Any, **more: Any) -> Any:
        return self.from_string(FRAME) if name == "frame" else whole(self, name, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Environment, "get_template", get)
        return render("frame", {"title": "t", "bench": device.bench_section(bench)})


@pytest.fixture(scope="module")
def bench() -> dict[str, Any]:
    return made.everywhere()


@pytest.fixture(scope="module")
def html(bench: dict[str, Any]) -> str:
    return page_of(bench)


class TestSentence:
    def test_a_board_by_hand(self) -> None:
        # nRF52840: 64 MHz, flash 1 to 1.05 times; cycles 1.3 to 1.6 an instruction of 4.2 and of 151 million.
        board = made.open_board("nrf52840")
        low, high = board.stall
        student = [1.3 * 4.2e6 * low / 64e3, 1.6 * 4.2e6 * high / 64e3]
        tda = [1.3 * 151e6 * low / 64e6, 1.6 * 151e6 * high / 64e6]
        words = device_words.lead_sentence(made.answer(made.on_board("nrf52840")))
        assert (
            "On the Nordic nRF52840 (Cortex-M4 at 64 MHz, modelled, not measured), the int8 student" in words
        )
        assert f"in {student[0]:.1f} to {student[1]:.0f} ms where" in words
        assert f"would take {tda[0]:.2f} to {tda[1]:.2f} s, about 36 times as long" in words
        ends = (1000 * tda[0] / student[1], 1000 * tda[1] / student[0])
        assert f"({ends[0]:.0f} to {ends[1]:.0f}). Persistence and its image are " in words

    def test_topology_that_cannot_keep_up_is_said(self) -> None:
        words = device_words.lead_sentence(made.answer(made.on_board("nrf52840", every_s=1.28)))
        assert "), too slow for a window every 1.28 s. " in words
        assert "too slow" not in device_words.lead_sentence(made.answer(made.on_board("nrf52840")))

    def test_how_little_of_it_is_topology_is_said(self) -> None:
        rows = made.on_board("nrf52840")
        (tda,) = (row for row in rows if row["pipeline"] == "tda")
        tda["instructions"] = 10_000_000
        tda["layers"] = [
            {"name": "persistence", "instructions": 200_000},
            {"name": "image", "instructions": 300_000},
            {"name": "stem", "instructions": 9_500_000},
        ]
        words = device_words.lead_sentence(made.answer(rows))
        assert words.endswith(
            "Persistence and its image are 5.0 % of that pipeline\u2019s instructions, the rest is the "
            "teacher that reads them, in float32."
        )
        tda["layers"] = []
        assert "Persistence" not in device_words.lead_sentence(made.answer(rows))

    def test_topology_that_does_not_fit_is_said_with_the_numbers(self) -> None:
        words = device_words.lead_sentence(made.answer(made.on_board("nrf52840", tda_ram=412_000)))
        assert "does not fit: it needs 412 kB of RAM where the board has 262 kB" in words
        assert re.search(r"answers in [\d.]+ to [\d.]+ ms in 6\.50 kB of the board's 262 kB RAM", words)

    def test_a_core_alone_is_compared_in_instructions(self) -> None:
        words = device_words.lead_sentence(made.answer(made.on_core()))
        assert "Cortex-M4 core (instructions counted on an emulated core)" in words
        assert "4.20 M instructions a window where the topological pipeline takes 151 M, 36 times" in words
        assert not re.search(r"\d (ms|s|µs)\b", words)

    def test_measured_says_median_and_95_percent(self) -> None:
        words = device_words.lead_sentence(made.answer(made.measured("local", made.LOCAL)))
        assert "target local, Some <CPU> (measured)" in words and "17 times as long" in words
        assert "187 µs (median; 95 % of runs within 262 µs)" in words

    def test_topology_in_c_is_compared_with_the_student_in_c(self) -> None:
        def row(pipeline: str, runtime: str, p50: float) -> dict[str, Any]:
            latency = dict.fromkeys(("p50", "p95", "p99", "min", "cold"), p50)
            result = BenchResult("ssh://a@b", "measured", pipeline, runtime, latency_ms=latency)
            return result.to_dict()

        rows = [
            row("tda", "c", 2.0),
            row("student.int8", "litert", 0.05),
            row("student.int8", "c", 0.5),
        ]
        assert "4.0 times as long" in device_words.lead_sentence(made.answer(rows))
        assert "40 times as long" in device_words.lead_sentence(made.answer(rows[:2]))
        also = [*rows, row("tda", "fast+onnxruntime", 1.0)]
        assert "20 times as long" in device_words.lead_sentence(made.answer(also))

    def test_a_board_on_a_wire_is_known_by_what_it_says_of_itself(self) -> None:
        rows = documents.complete(made.answer(made.on_wire("nrf52840")))["results"]
        words = device_words.lead_sentence(made.answer(rows))
        assert words.startswith("On the Nordic nRF52840 (Cortex-M4 at 64 MHz, measured), the int8 student")
        assert device_names.limits(rows[0]) == {"RAM": 262_144, "flash": 1_048_576}
        unknown = made.answer(made.on_wire(""))
        assert "On the board at serial:/dev/ttyACM0 (" in device_words.lead_sentence(unknown)
        section = device.bench_section(made.answer(rows))
        assert section["mcu"] == [] and len(section["counted"]) == 4

    def test_the_most_like_a_watch_leads(self, bench: dict[str, Any]) -> None:
        order = ["serial:", "mcu:nrf52840", "mcu:cortex-m4", "adb:", "ssh:", "local"]
        left = list(bench["results"])
        for prefix in order:
            found = device_words.lead({"results": left})
            assert found is not None and found.student["target"].startswith(prefix)
            gone = {"mcu:nrf52840", "mcu:rp2040", "mcu:stm32u575"} if "nrf" in prefix else set()
            left = [row for row in left if not row["target"].startswith(prefix) and row["target"] not in gone]
        assert device_words.lead({"results": left}) is None
        assert device_words.lead_sentence({"results": left}) == ""

    def test_both_sides_have_the_fewest_threads_and_were_timed_back_to_back(self) -> None:
        quick = {name: (runtime, p50 / 4) for name, (runtime, p50) in made.LOCAL.items()}
        long = made.measured("local", quick, mode="sustained", sustained={"minutes": 1})
        bench = made.answer(
            made.measured("local", quick, threads=4), made.measured("local", made.LOCAL, threads=1), long
        )
        found = device_words.lead(bench)
        assert found is not None and found.student["latency_ms"]["p50"] == 0.187
        assert found.tda is not None and found.tda["latency_ms"]["p50"] == 3.21

    def test_the_tile_agrees_with_the_sentence(self) -> None:
        board = verdict._latency_tile(made.answer(made.on_board("nrf52840")))
        assert re.fullmatch(r"[\d.]+\u2013[\d.]+ ms", board.value) and "36 times as long" in board.detail
        assert "modelled on mcu:nrf52840" in board.detail
        small = verdict._latency_tile(made.answer(made.on_board("nrf52840", tda_ram=412_000)))
        assert small.detail.endswith("the TDA pipeline does not fit")
        core = verdict._latency_tile(made.answer(made.on_core()))
        assert (core.label, core.value) == ("Instructions for one window", "4.20 M")


class TestPage:
    def test_it_is_strict_html_with_names_for_all(self, html: str) -> None:
        page = Page(html)
        assert html.count("<table") == html.count("<caption")
        assert html.count("<figure") == len(re.findall(r'<figure role="group" aria-label="[^"]{20,}"', html))
        assert len(page.ids) == len(set(page.ids)) and page.refers <= set(page.ids)

    def test_everything_modelled_has_its_range_and_basis(self, bench: dict[str, Any], html: str) -> None:
        text = Page(html).text
        for row in bench["results"]:
            if row["basis"] == "modelled" and not row["error"]:
                shown = device_rows.row(row, ())
                assert " to " in shown["p50"] or shown["p95"] == "no range"
                for name in ("latency_range_ms", "energy_uj", "battery_days", "cycles_range"):
                    assert row[name] is None or row[name]["basis"] in text

    def test_what_does_not_fit_is_shown_with_its_numbers(self, html: str) -> None:
        text = Page(html).text
        assert "412 kB: too much" in text and "needs 412,300 bytes" in text
        assert re.search(r"mcu:rp2040\s*Raspberry Pi RP2040, one core, modelled[^%]{0,60}does not fit", text)

    def test_where_the_instructions_go(self, html: str) -> None:
        # (31 + 20) / 151
        assert "is 33.8 % of the TDA pipeline" in Page(html).text

    def test_long_runs_and_throttling(self, html: str, bench: dict[str, Any]) -> None:
        rows = {(row["target"], row["mode"]): row for row in device_rows.conditions(bench["results"])}
        long = rows["ssh://pi@watch", "sustained"]
        assert long["times"] == f"{2.3 / (9 * 0.187):.2f}\u00d7"
        assert "10 minutes on end; median 1.70 ms in the first tenth, 2.30 ms in the last" in long["facts"]
        assert "58 °C at first, 72 °C at last" in long["facts"] and "1.50 GHz" in long["facts"]
        assert "slowed itself down" in rows["adb:0A1B", "steady"]["facts"]
        assert long["facts"] in Page(html).text

    def test_without_them_nothing_is_said_of_them(self) -> None:
        assert device_rows.conditions(made.measured("local", made.LOCAL)) == []
        assert "Other conditions" not in page_of(made.answer(made.measured("local", made.LOCAL)))

    def test_hostile_names_stay_text(self) -> None:
        nasty = "<script>alert(1)</script>&$x$"
        rows = made.measured(f"ssh://{nasty}", made.PI, throttled=True, mode="duty-cycled")
        board = made.on_board("nrf52840")
        for row in board:
            row["device"]["name"] = nasty
            row["layers"][0]["name"] = nasty
        error = [{**board[0], "error": nasty, "latency_ms": None}]
        html = page_of(made.answer(rows, board[1:], error, made.on_core(), notes=[nasty], subjects=[nasty]))
        assert "<script" not in html
        assert nasty in Page(html).text

    @pytest.mark.parametrize(
        "rows",
        [
            [],
            made.on_core(),
            [made.NPU],
            made.on_board("nrf52840", tda_ram=412_000)[:1],
            made.measured("browser", {"student.float32": ("wasm", 1.0)}),
            [{"target": "local", "basis": "measured", "pipeline": "other", "runtime": "x", "error": "no"}],
        ],
        ids=["nothing", "core", "npu", "misfit", "student", "error"],
    )
    def test_little_makes_a_page_too(self, rows: list[dict[str, Any]]) -> None:
        Page(page_of(made.answer(rows)))


class TestSeveralFiles:
    def test_a_later_file_replaces_the_same_measurement(self) -> None:
        quick = {"student.int8": ("litert", 0.1), "tda": ("ripser+persim+onnxruntime", 40.0)}
        old = made.answer(
            made.measured("local", made.LOCAL), made.on_board("nrf52840"), notes=["a", "b"], subjects=["1"]
        )
        new = made.answer(
            made.measured("local", quick), made.measured("local", quick, threads=2), notes=["b", "c"],
            subjects=["1"], int8_cost={"cost": 0.0}, partial=True,
        )  # fmt: skip
        both = documents.merge([old, new])
        times = [
            (row["pipeline"], row["runtime"], row["threads"], row["latency_ms"]["p50"])
            for row in both["results"]
            if row["target"] == "local"
        ]
        assert times == [
            ("tda", "fast+onnxruntime", 1, 3.21),
            ("teacher.signal", "onnxruntime", 1, 0.93),
            ("student.float32", "litert", 1, 0.412),
            ("student.int8", "litert", 1, 0.1),
            ("tda", "ripser+persim+onnxruntime", 1, 40.0),
            ("student.int8", "litert", 2, 0.1),
            ("tda", "ripser+persim+onnxruntime", 2, 40.0),
        ]
        assert len([row for row in both["results"] if row["target"] == "mcu:nrf52840"]) == 4
        assert both["notes"] == ["a", "b", "c"] and both["subjects"] == ["1"]
        assert both["partial"] and both["int8_cost"] == {"cost": 0.0}

    def test_files_of_other_people_or_bundles_are_told_of(self) -> None:
        other = made.on_core("cortex-m33")
        for row in other:
            row["self_test"]["bundle"] = "b" * 64
        both = documents.merge([made.answer(made.on_core()), made.answer(other, subjects=["7"])])
        assert any("different held-out subjects, (1, 2) and (7)" in note for note in both["notes"])
        assert any("2 different bundles" in note for note in both["notes"])

    def test_a_refusal_in_words_alone_gets_its_board(self) -> None:
        row = made.on_board("rp2040", tda_ram=412_000)[0]
        bare = {**row, "ram_bytes": None, "flash_bytes": None, "device": {}}
        (whole,) = documents.complete(made.answer([bare]))["results"]
        assert device_names.misfits(whole) == ["RAM"] and device_names.misfits(bare) == []
        assert whole["device"]["name"] == "Raspberry Pi RP2040, one core"

    def test_every_damaged_file_is_named(self, tmp_path: Path) -> None:
        bad = made.answer(made.measured("local", made.LOCAL))
        bad["results"][1]["latency_ms"]["p50"] = float("nan")
        wide = made.answer([{**made.NPU, "accuracy": 7.0}])
        texts = {"a.json": {}, "b.json": bad, "c.json": {"results": [3]}, "d.json": wide}
        paths = [tmp_path / name for name in texts]
        for path, document in zip(paths, texts.values(), strict=True):
            path.write_text(json.dumps(document))
        with pytest.raises(BadInputError) as caught:
            read_documents([*paths, tmp_path / "none.json"])
        words = "\n".join(caught.value.problems)
        for part in ("a.json: no results", "b.json, result 2", "c.json, result 1", "d.json", "none.json"):
            assert part in words

    def test_a_bundle_lists_its_own_files(self, tmp_path: Path) -> None:
        export_student(export_run(tmp_path), 1, 0, tmp_path / "bundle", targets=("onnx",))
        found = inputs._exported(tmp_path, None, tmp_path / "bundle", [])
        assert found is not None
        rows = device.export_section(found)["files"]
        assert {row["precision"] for row in rows} == {"float32", "int8"}
        for row in rows:
            content = (tmp_path / "bundle" / row["path"]).read_bytes()
            assert (row["bytes"], row["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
