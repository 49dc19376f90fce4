"""Recipes: what comes along parses, what is wrong is named with what is known, overrides and TOML hold."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from made_training import waves

from topokd_edge.distill.method import Distilling
from topokd_edge.distill.recipe import Recipe, builtin_recipes, load_recipe, parse_recipe
from topokd_edge.errors import UsageError

MINIMAL = """
name = "mine"
split = { folds = 3 }
signal_teacher = { training = { epochs = 2 } }
topology_teacher = { training = { epochs = 2 } }
student = { scratch = { epochs = 2 }, distilled = { epochs = 2 } }
"""


def refused(text: str, *overrides: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse_recipe(text, "mine.toml", overrides)
    return caught.value


@pytest.mark.parametrize("name", builtin_recipes())
def test_recipes_that_come_along(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.student.variants()


def test_the_published_numbers_are_the_defaults() -> None:
    # Jeon et al., arXiv 2502.00779: GENEActiv.
    recipe = parse_recipe(MINIMAL, "mine.toml")
    settings = recipe.student.distilling
    assert (settings.tau, settings.eta, settings.temperature) == (0.7, 0.7, 4.0)
    assert (settings.alpha_signal, settings.alpha_topology) == (0.15, 0.2)
    assert settings.annealing
    training = recipe.student.scratch
    assert (training.momentum, training.weight_decay, training.batch_size) == (0.9, 1e-4, 64)
    assert (recipe.topology.size, recipe.topology.sigma) == ((64, 64), 0.015)
    assert recipe.protocol == "nested-subject"


def test_a_misspelt_key_is_named_with_those_known() -> None:
    error = refused(MINIMAL, "student.distilling.temprature=3")
    assert len(error.problems) == 1
    assert error.problems[0].startswith("student.distilling.temprature: no such key; known here: ")
    for known in Distilling.model_fields:
        assert known in error.problems[0]
    assert "mine.toml" in error.message


def test_a_misspelt_section_is_named_with_those_known() -> None:
    (problem,) = refused(MINIMAL, "spilt.folds=3").problems
    assert problem.startswith("spilt: no such key")
    assert "split" in problem
    assert "signal_teacher" in problem


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("student.distilling.alpha_signal", "-1"),
        ("student.distilling.tau", "1.5"),
        ("student.distilling.eta", "-0.1"),
        ("student.distilling.temperature", "0"),
        ("student.distilling.temperature", "nan"),
        ("student.distilling.mixup_share", "2"),
        ("student.distilling.kl_reduction", "mean"),
        ("student.scratch.epochs", "0"),
        ("student.scratch.epochs", "2.5"),
        ("student.scratch.learning_rate", "inf"),
        ("student.scratch.batch_size", "1"),
        ("student.scratch.schedule", "cosine"),
        ("student.network.depth", "15"),
        ("student.network.depth", "4"),
        ("student.network.width", "0"),
        ("student.network.stem_stride", "3"),
        ("topology.sigma", "0"),
        ("topology.sigma", "2"),
        ("topology.min_life", "1"),
        ("topology.essential", "lose"),
        ("split.folds", "1"),
        ("split.validation_subjects", "-1"),
        ("split.seed", "-1"),
        ("protocol", "random"),
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: str) -> None:
    (problem,) = refused(MINIMAL, f"{key}={value}").problems
    assert problem.startswith(f"{key} = ")
    assert value in problem
    assert "Value error" not in problem


def test_depth_says_what_is_expected() -> None:
    (problem,) = refused(MINIMAL, "signal_teacher.network.depth=15").problems
    assert problem == "signal_teacher.network.depth = 15: expected 6 N + 4, such as 16 or 28"


@pytest.mark.parametrize(
    ("override", "where"), [("topology.size=[64, 0]", "topology.size.1"), ("seeds=[]", "seeds")]
)
def test_lists_are_checked(override: str, where: str) -> None:
    (problem,) = refused(MINIMAL, override).problems
    assert problem.startswith(f"{where} = ")


def test_all_problems_are_told_at_once() -> None:
    text = MINIMAL.replace('name = "mine"\n', "").replace("folds = 3", "folds = 1, parts = 2")
    error = refused(text, "topology.sigma=-1", "student.distilling.alpha_signal=-1")
    starts = (
        "name: missing",
        "split.folds = 1",
        "split.parts:",
        "topology.sigma = -1",
        "student.distilling.alpha_s",
    )
    assert len(error.problems) == len(starts)
    for start in starts:
        assert any(problem.startswith(start) for problem in error.problems), start
    assert "5 problem" in error.message


def test_candidates_are_checked_like_the_rest() -> None:
    text = MINIMAL + "[[student.candidates]]\nalpha_sigma = 0.1\n[[student.candidates]]\ntau = 3\neta = -1\n"
    text = text.replace("student = { scratch = { epochs = 2 }, distilled = { epochs = 2 } }", "")
    text += "[student.scratch]\nepochs = 2\n[student.distilled]\nepochs = 2\n"
    problems = refused(text, "split.folds=1").problems
    starts = (
        "student.candidates.0.alpha_sigma: no such key; known here: alpha, alpha_signal, alpha_topology",
        "student.candidates.1.tau = 3: ",
        "student.candidates.1.eta = -1: ",
        "split.folds = 1: ",
    )
    assert len(problems) == len(starts)
    for start in starts:
        assert any(problem.startswith(start) for problem in problems), start
    assert all("\n" not in problem for problem in problems)


def test_candidates_are_changes_to_the_settings() -> None:
    recipe = parse_recipe(
        MINIMAL,
        "mine.toml",
        ["student.distilling.tau=0.4", "student.candidates=[{alpha_signal = 0.0}, {tau = 0.9}]"],
    )
    base = recipe.student.distilling
    assert [(v.tau, v.alpha_signal, v.eta) for v in recipe.student.variants()] == [
        (0.4, 0.0, base.eta),
        (0.9, base.alpha_signal, base.eta),
    ]
    assert parse_recipe(MINIMAL, "mine.toml").student.variants() == [Distilling()]


def test_overrides() -> None:
    recipe = parse_recipe(
        MINIMAL,
        "mine.toml",
        [
            "student.distilling.tau=0.5",
            "student.scratch.epochs = 9",
            "student.scratch.schedule=steps",
            'topology.essential="cap"',
            "topology.size=[16, 32]",
            "signal_teacher.network={depth = 28, width = 3}",
            "seeds=[3, 4]",
            "student.distilling.annealing=false",
            "note=two words = kept",
        ],
    )
    assert recipe.student.distilling.tau == 0.5
    assert recipe.student.scratch.epochs == 9
    assert recipe.student.scratch.schedule == "steps"
    assert recipe.topology.essential == "cap"
    assert recipe.topology.size == (16, 32)
    assert (recipe.signal_teacher.network.depth, recipe.signal_teacher.network.width) == (28, 3)
    assert recipe.seeds == (3, 4)
    assert not recipe.student.distilling.annealing
    assert recipe.note == "two words = kept"


def test_the_last_override_holds() -> None:
    recipe = parse_recipe(MINIMAL, "mine.toml", ["split.folds=4", "split.folds=5"])
    assert recipe.split.folds == 5


@pytest.mark.parametrize("override", ["student.distilling.tau", "=0.5", " = 0.5", ""])
def test_an_override_that_is_none(override: str) -> None:
    with pytest.raises(UsageError, match=r"expected key\.key=value"):
        parse_recipe(MINIMAL, "mine.toml", [override])


def test_an_override_through_a_value() -> None:
    with pytest.raises(UsageError, match="folds is a value, not a section"):
        parse_recipe(MINIMAL, "mine.toml", ["split.folds.outer=3"])


@pytest.mark.parametrize("override", ["student=3", "seeds=3", "split.folds=many", "split.folds="])
def test_an_override_of_the_wrong_kind(override: str) -> None:
    assert refused(MINIMAL, override).problems[0].startswith(override.split("=")[0])


@pytest.mark.parametrize("name", builtin_recipes())
def test_toml_says_the_same_recipe(name: str) -> None:
    recipe = load_recipe(name, ["topology.size=[8, 24]", 'note="quotes \\" and\\nlines, ümlauts"'])
    text = recipe.to_toml()
    assert parse_recipe(text, "again") == recipe
    assert parse_recipe(text, "again").to_toml() == text
    assert set(tomllib.loads(text)) == set(Recipe.model_fields)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL, encoding="utf-8")
    assert load_recipe(str(path), ["split.folds=7"]).split.folds == 7


@pytest.mark.parametrize("name", ["dmeo", "missing.toml", "."])
def test_an_unknown_recipe_lists_what_exists(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(name)
    assert name in caught.value.message
    for known in builtin_recipes():
        assert known in caught.value.hint


def test_what_is_not_toml() -> None:
    with pytest.raises(UsageError, match=r"mine\.toml: not valid TOML .*line 1"):
        parse_recipe("name = \nnote = 1", "mine.toml")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"binary\.toml: not readable as UTF-8"):
        load_recipe(str(path))


FIXED = """{ kind = "fixed", fold = [
    { test = ["1"], validation = ["2"], fit = ["3"] },
    { test = ["2"], validation = ["3"], fit = ["1"] },
] }"""


def split_of(text: str) -> str:
    """The minimal recipe with another split."""
    (line,) = (line for line in MINIMAL.splitlines() if line.startswith("split ="))
    return MINIMAL.replace(line, f"split = {text}")


def test_the_three_kinds_of_split_and_their_way_back(tmp_path: Path) -> None:
    for text, kind, folds in (
        ("{ folds = 3 }", "folds", 0),
        ('{ kind = "leave-one-out", validation_subjects = 2 }', "leave-one-out", 0),
        (FIXED.replace("\n", ""), "fixed", 2),
    ):
        recipe = parse_recipe(split_of(text), "mine.toml")
        assert recipe.split.plan().kind == kind
        assert len(recipe.split.plan().fixed) == folds
        assert parse_recipe(recipe.to_toml(), "again.toml") == recipe


def test_every_number_of_a_split_counts() -> None:
    everyone = waves(9, 1)
    dealt = {
        text: tuple(parse_recipe(split_of(text), "mine.toml").split.plan().deal(everyone))
        for text in (
            "{ folds = 3 }",
            "{ folds = 3, seed = 1 }",
            "{ folds = 3, validation_subjects = 2 }",
            "{ folds = 4 }",
        )
    }
    assert len(set(dealt.values())) == len(dealt)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{ seed = 1 }", "folds is for kind = 'folds', and needed there; kind is 'folds'"),
        ('{ kind = "leave-one-out", folds = 3 }', "folds is for kind = 'folds'"),
        ('{ kind = "fixed" }', "[[split.fold]] is for kind = 'fixed', and needed there"),
        (
            '{ folds = 3, fold = [{ test = ["1"], validation = ["2"], fit = ["3"] }] }',
            "[[split.fold]] is for",
        ),
        ('{ kind = "random" }', "split.kind = 'random'"),
        (
            '{ kind = "fixed", fold = [{ test = ["1"], validation = [], fit = ["3"] }] }',
            "split.fold.0.validation",
        ),
        ('{ kind = "fixed", fold = [{ test = ["1"], fit = ["3"] }] }', "split.fold.0.validation: missing"),
        (
            '{ kind = "fixed", fold = [{ test = ["1"], validation = ["2"], fit = ["3"], rest = [] }] }',
            "split.fold.0.rest: no such key; known here: fit, test, validation",
        ),
    ],
)
def test_a_split_that_makes_no_sense_is_named(text: str, said: str) -> None:
    (problem,) = refused(split_of(text)).problems
    assert said in problem
    assert problem.startswith("split")
