"""docs/method.md says what the program does: every key of a recipe, with its default, and its numbers."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("torch")

import numpy as np
import torch
from pydantic.fields import FieldInfo

from topokd_edge.distill import signatures
from topokd_edge.distill.int8_part import Int8
from topokd_edge.distill.method import Distilling
from topokd_edge.distill.mixup import draw_mix
from topokd_edge.distill.parts import Augmentation, Network, Part, Training
from topokd_edge.distill.recipe import (
    Experiment,
    FixedFold,
    Member,
    Recipe,
    Split,
    Student,
    Topology,
    builtin_recipes,
    load_recipe,
)
from topokd_edge.evaluate.metrics import ECE_BINS
from topokd_edge.evaluate.smoothness import TEMPERATURES
from topokd_edge.models.wrn import WRNSpec, count

DOC = (Path(__file__).parents[1] / "docs" / "method.md").read_text(encoding="utf-8")

SECTIONS: dict[str, type[Part]] = {
    "The recipe itself": Recipe,
    "`[split]`": Split,
    "`[[split.fold]]`": FixedFold,
    "`[topology]`": Topology,
    "`[augmentation]`": Augmentation,
    "`[signal_teacher]`, `[topology_teacher]`": Member,
    "`network`, of teachers and student": Network,
    "`training`, `scratch`, `distilled`": Training,
    "`[student]`": Student,
    "`[student.int8]`": Int8,
    "`[student.distilling]`, and each of `candidates`": Distilling,
    "`[[experiments]]`": Experiment,
}


def section(title: str) -> str:
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", DOC, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The rows of all tables, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rules = [number for number, row in enumerate(cells) if re.fullmatch(r":?-+:?", row[0])]
    heads = {number for rule in rules for number in (rule - 1, rule)}
    return [row for number, row in enumerate(cells) if number not in heads]


def parts_in(annotation: Any) -> Iterator[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
        for field in annotation.model_fields.values():
            yield from parts_in(field.annotation)
    for inner in get_args(annotation):
        yield from parts_in(inner)


def choices(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from (str(value) for value in get_args(annotation))
    else:
        for inner in get_args(annotation):
            yield from choices(inner)


def as_told(field: FieldInfo) -> Any:
    """What the cell of a default must say."""
    if field.is_required():
        return "needed"
    if field.default is None:
        return "unset"
    return "section" if isinstance(field.default, Part) else field.default


def read(cell: str) -> Any:
    """A cell: a word, or a value as TOML in backticks."""
    if not cell.startswith("`"):
        return cell
    value = tomllib.loads(f"value = {cell.strip('`')}")["value"]
    return tuple(value) if isinstance(value, list) else value


def test_every_section_of_a_recipe_has_a_table() -> None:
    assert set(SECTIONS.values()) == set(parts_in(Recipe))


@pytest.mark.parametrize(("title", "part"), SECTIONS.items())
def test_every_key_has_a_row_and_every_default_is_true(title: str, part: type[Part]) -> None:
    told = {row[0].strip("`"): read(row[1]) for row in rows(section(title))}
    assert told == {name: as_told(field) for name, field in part.model_fields.items()}


@pytest.mark.parametrize(("title", "part"), SECTIONS.items())
def test_every_choice_is_named(title: str, part: type[Part]) -> None:
    table = {row[0].strip("`"): row[3] for row in rows(section(title))}
    for name, field in part.model_fields.items():
        if not list(parts_in(field.annotation)) and name != "teachers":
            for choice in choices(field.annotation):
                assert re.search(rf"(?<![\w-]){re.escape(choice)}(?![\w-])", table[name]), (name, choice)


def test_every_row_of_a_key_names_five_things() -> None:
    for title in SECTIONS:
        assert {len(row) for row in rows(section(title))} == {5}, title


def test_every_switch_is_a_key() -> None:
    switches = [row[3].strip("`") for row in rows(section("As published, and here"))]
    keys = [switch for switch in switches if not switch.startswith("--")]
    assert len(keys) > 10
    for key in keys:
        name, value = key.split(" = ")
        recipe = load_recipe("default", [key]).model_dump(mode="json")
        for word in name.split("."):
            recipe = recipe[word]
        assert recipe == tomllib.loads(f"value = {value}")["value"]


def test_every_shipped_recipe_is_named() -> None:
    assert [name for name in builtin_recipes() if f"`{name}`" not in section("Every key of a recipe")] == []


def of_network(name: str, dims: int, channels: int, classes: int) -> WRNSpec:
    shape = re.match(r"WRN(\d+)-(\d+)(?:, stem_stride (2))?$", name)
    assert shape is not None, name
    return WRNSpec(dims, int(shape[1]), int(shape[2]), channels, classes, int(shape[3] or 1))


def test_parameters_and_macs_of_the_networks() -> None:
    columns = (
        (1, 3, 14, (500,), 2), (1, 40, 12, (100,), 2), (2, 3, 14, (64, 64), 1), (2, 40, 12, (64, 64), 1),
    )  # fmt: skip
    table = rows(section("Networks"))
    assert len(table) == 6
    for name, *cells in table:
        for cell, (dims, channels, classes, size, digits) in zip(cells, columns, strict=True):
            if cell != "-":
                params, macs = count(of_network(name, dims, channels, classes), size)
                assert cell == f"{params:,} / {macs / 1e6:.{digits}f} M"


def test_thresholds_of_the_signatures() -> None:
    text = section("Failure signatures")
    table = rows(text)
    assert [row[0].strip("`") for row in table if row[0]] == [
        "teacher-gap",
        "over-smoothing",
        "weak-teacher",
        "student-capacity",
        "below-scratch",
    ]
    points = [int(row[2].split()[0]) for row in table if "points" in row[2]]
    stated = (signatures.GAP, signatures.UNDER_CONFIDENT, signatures.CAPACITY)
    assert points == [round(100 * value) for value in stated]
    assert f"the larger of {round(100 * signatures.LEAST)} point and twice" in text


def test_the_share_that_is_mixed_as_published() -> None:
    told = re.search(r"that is ([\d.]+) % where 10 % are\s+asked for, ([\d.]+) % for 50 %, ([\d.]+) %", DOC)
    assert told is not None
    for share, percent in zip((0.1, 0.5, 0.9), told.groups(), strict=True):
        assert f"{100 * (63 / 64) ** int(round((1 - share) * 64, 9)):.1f}" == percent
    rng = np.random.default_rng(0)
    mixes = [draw_mix(64, 1.0, 0.1, rng, torch.device("cpu"), draw="published") for _ in range(400)]
    assert np.mean([len(mix.mixed) / 64 for mix in mixes]) == pytest.approx(0.408, abs=0.01)


def test_measures_of_smoothness() -> None:
    told = ", ".join(f"{value:g}" for value in TEMPERATURES)
    assert f"at T = {told}, without mixup" in section("Smoothness")
    assert f"ECE has {ECE_BINS} bins" in section("Statistics")


def test_links_inside_the_page() -> None:
    titles = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in DOC.splitlines()
        if line.startswith("#")
    }
    links = set(re.findall(r"\]\(#([^)]*)\)", DOC))
    assert links
    assert links <= titles
