"""Figures of the device page: numbers that do not lie on each other, bars that say what they mean."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import made_bench as made
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from topokd_edge.report import device_figures, device_map, numbers, svg
from topokd_edge.report.device_bars import Axis, Bar, Group, drawing
from topokd_edge.report.device_map import Box, overlap, place
from topokd_edge.report.device_names import COLOURS


def drawn(draw: Callable[[Any], None], inches: tuple[float, float]) -> Figure:
    """Draw as the report does, and lay out."""
    from matplotlib import rc_context

    with rc_context(svg._STYLE):
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure)
        figure.draw_without_rendering()
    return figure


def boxes(figure: Figure) -> list[Box]:
    """Return where the annotations stand, in points."""
    found = []
    for text in figure.axes[0].texts:
        extent = Annotation.get_window_extent(text) if text.arrow_patch is None else _text_only(text)
        found.append(tuple(value * 72 / figure.dpi for value in extent.extents))
    return found


def _text_only(text: Annotation) -> Any:
    from matplotlib.text import Text

    return Text.get_window_extent(text)


def apart(found: list[Box]) -> None:
    for one, other in itertools.combinations(found, 2):
        assert overlap(one, other) < 0.3, (one, other)


class TestMap:
    @pytest.mark.parametrize("inches", [device_map.WIDE, device_map.NARROW], ids=["wide", "narrow"])
    def test_no_number_lies_on_another_or_on_a_sign_or_outside(self, inches: tuple[float, float]) -> None:
        mapped = device_map.collect(made.everywhere()["results"])
        figure = drawn(device_map.drawing(mapped), inches)
        found = boxes(figure)
        assert len(found) == len(mapped.points) == 28
        apart(found)
        axes = figure.axes[0]
        area = [value * 72 / figure.dpi for value in axes.get_window_extent().extents]
        floor = device_map._floor(mapped.points)
        for point in mapped.points:
            x, y = (
                axes.transData.transform((point.latency[1], device_map._height(point, floor)))
                * 72
                / figure.dpi
            )
            assert all(overlap((x - 2, y - 2, x + 2, y + 2), box) < 0.3 for box in found)
        assert all(
            area[0] - 1 <= box[0]
            and box[2] <= area[2] + 1
            and area[1] - 1 <= box[1]
            and box[3] <= area[3] + 1
            for box in found
        )

    def test_what_a_point_says(self) -> None:
        results = made.on_board("nrf52840") + made.measured("local", made.LOCAL)
        results += made.measured("local", {"tda": ("slow", 99.0)})
        mapped = device_map.collect(results)
        assert [item["number"] for item in mapped.targets] == [1, 2]
        assert mapped.targets[0]["name"] == "mcu:nrf52840, Nordic nRF52840"
        points = {(point.number, point.pipeline): point for point in mapped.points}
        board, here = points[1, "tda"], points[2, "tda"]
        span = results[0]["latency_range_ms"]
        assert board.modelled and board.latency[::2] == (span["low"], span["high"])
        assert here.latency == (3.21, 3.21, 1.4 * 3.21) and here.interval == pytest.approx((0.80, 0.88))
        axes = drawn(device_map.drawing(mapped), device_map.WIDE).axes[0]
        signs = {
            (to_hex(item.get_edgecolor()[0]).lower(), to_hex(item.get_facecolor()[0]).lower())
            for item in axes.collections
        }
        for name, colour in COLOURS.items():
            # Modelled is hollow, measured is full.
            assert {(colour.lower(), "#ffffff"), (colour.lower(), colour.lower())} <= signs, name
        assert axes.get_xscale() == "log"

    def test_without_accuracy_there_is_still_latency(self) -> None:
        mapped = device_map.collect([made.NPU])
        axes = drawn(device_map.drawing(mapped), device_map.NARROW).axes[0]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["accuracy\nnot tried"]
        assert device_map.figure(device_map.collect(made.on_core()), narrow=True) == ""

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.floats(0, 600), st.floats(0, 300)), min_size=1, max_size=30))
    def test_labels_find_free_places_among_scattered_points(self, anchors: list[tuple[float, float]]) -> None:
        frame = (-20.0, -20.0, 620.0, 320.0)
        found = place(anchors, [(9.0, 7.0)] * len(anchors), frame)
        for one, other in itertools.combinations(found, 2):
            assert overlap(one, other) == 0
        for box, (x, y) in zip(found, anchors, strict=True):
            assert frame[0] <= box[0] and box[2] <= frame[2] and frame[1] <= box[1] and box[3] <= frame[3]
            assert math.dist(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), (x, y)) < 150

    def test_a_label_is_not_beside_the_point_of_another(self) -> None:
        # Two points so near that between them there is no room: each label on its own side.
        anchors = [(100.0, 100.0), (110.0, 100.0)]
        left, right = place(anchors[::-1], [(9.0, 7.0)] * 2, (0.0, 0.0, 300.0, 300.0))[::-1]
        for box, own, other in ((left, *anchors), (right, *anchors[::-1])):
            middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            assert math.dist(middle, own) < math.dist(middle, other)


class TestBars:
    def test_memory_crosses_the_line_only_where_it_does_not_fit(self) -> None:
        results = made.on_board("nrf52840") + made.on_board("rp2040", tda_ram=412_000)
        ram, flash = device_figures.budgets(results)
        # 412,300 bytes with the stack, of 270,336.
        assert "412 kB: too much" in ram.alt and "too much" not in flash.alt
        assert "url(#" in ram.svg and "pattern" in ram.svg and "pattern" not in flash.svg
        assert "Raspberry Pi RP2040, one core TDA 412 kB" in ram.alt

    def test_the_needs_of_a_refusal_may_be_told_in_words_alone(self) -> None:
        row = made.on_board("rp2040", tda_ram=412_000)[0]
        bare = {**row, "ram_bytes": None, "flash_bytes": None}
        (ram,) = device_figures.budgets([bare])
        assert "412 kB: too much" in ram.alt

    def test_lengths_are_shares_and_the_rest_is_cut_off(self) -> None:
        bar = Bar("a", [(0.0, 0.25, "#111111")], "x")
        long = Bar("b", [(0.0, 9.0, "#222222")], "y", loud=True)
        axes = drawn(
            drawing([Group("g", [bar, long])], Axis("l", str, limit=1.0, most=2.4)), (3.4, 1.2)
        ).axes[0]
        widths = [(round(item.get_x(), 3), round(item.get_width(), 3)) for item in axes.patches]
        assert widths == [(0.0, 0.25), (0.0, 2.4), (1.0, 1.4)]
        assert [line.get_xdata()[0] for line in axes.lines] == [1.0]

    def test_energy_and_battery_are_ranges_with_a_basis_for_every_board(self) -> None:
        results = made.on_board("nrf52840") + made.on_board("stm32u575")
        energy, battery = device_figures.spans(results)
        for picture, key in ((energy, "energy_uj"), (battery, "battery_days")):
            assert len(picture.notes) == 2
            assert all("(modelled): " in note for note in picture.notes)
            assert results[0][key]["basis"] in picture.notes[0]
            assert picture.alt.count(" to ") == 8
        low, high = (results[2]["battery_days"][end] for end in ("low", "high"))
        assert f"Nordic nRF52840 float32 {low:.2g} to {high:.2g} days" in battery.alt

    def test_what_falls_behind_has_no_battery_life(self) -> None:
        rows = made.on_board("nrf52840", every_s=1.0)
        battery = device_figures.spans(rows)[1]
        # TDA takes 3.07 s at best, the signal teacher 1.83 s.
        assert "TDA falls behind" in battery.alt and "teacher falls behind" in battery.alt
        assert battery.alt.count(" to ") == 2
        assert [picture.title for picture in device_figures.spans(rows[:1])] == ["Energy for one window"]

    def test_stages_add_up(self) -> None:
        (stack,) = device_figures.stacks(made.on_core() + made.on_board("nrf52840"))
        bar = device_figures._stacked(made.on_core()[0])
        edges = [part[:2] for part in bar.parts]
        assert edges == [(0.0, 31e6), (31e6, 51e6), (51e6, 151e6)]
        assert "33.8 %" in stack.caption and "TDA 151 M; int8 4.20 M" in stack.alt
        assert device_figures.stacks(made.on_core()[1:]) == []

    def test_many_layers_are_the_costliest_and_the_rest(self) -> None:
        row = made.on_core()[3]
        rng = np.random.default_rng(0)
        layers = [{"name": f"l{index}", "instructions": int(rng.integers(1, 9999))} for index in range(40)]
        row = {**row, "layers": layers, "instructions": sum(layer["instructions"] for layer in layers)}
        shown = device_figures._layer_bars(row)
        assert len(shown) == 15 and shown[-1].label == "26 others"
        assert sum(bar.parts[0][1] for bar in shown) == row["instructions"]
        kept = [bar.parts[0][1] for bar in shown[:-1]]
        assert (
            sorted(kept, reverse=True)
            == sorted((layer["instructions"] for layer in layers), reverse=True)[:14]
        )

    def test_no_text_lies_on_another(self) -> None:
        results = [*made.on_board("nrf52840"), *made.on_board("rp2040"), *made.on_board("stm32u575")]
        groups = [
            Group(name, [device_figures._ranged(row, "energy_uj", numbers.energy_uj) for row in rows])
            for name, rows in device_figures._boards(results).items()
        ]
        figure = drawn(drawing(groups, Axis("x", str, log=True)), (3.4, 3.4))
        labels = figure.axes[0].get_yticklabels()
        ticks = [tuple(v * 72 / figure.dpi for v in label.get_window_extent().extents) for label in labels]
        apart([*boxes(figure), *ticks])
        assert all(box[2] <= 3.4 * 72 + 0.5 for box in boxes(figure))
