"""What a user may say about an import: as flags, or as a preset file of the same names."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from topokd_edge.data.clean import Cleaning
from topokd_edge.data.label_file import read_label_file
from topokd_edge.data.stream import ReadOptions
from topokd_edge.data.windows import Cut, LabelRule
from topokd_edge.errors import BadInputError, UsageError

PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Everything a user may say about an import.

    Attributes
    ----------
    read
        What the files do not say themselves.
    cleaning
        What is done to each recording; empty `channels` take the format's own choice.
    cut
        How windows are cut and labelled.
    subject_from
        Rule that names the subject of a file, see `topokd_edge.data.subjects.subject_of`.
    join
        Files of the same folder, subject and session are the sensors of one recording; see
        `topokd_edge.data.join.join_streams`.
    leave_out
        Recordings not to read, by their source: names with `*` and `?` as in a shell.
    """

    read: ReadOptions = field(default_factory=ReadOptions)
    cleaning: Cleaning = field(default_factory=Cleaning)
    cut: Cut = field(default_factory=Cut)
    subject_from: str | None = None
    join: bool = False
    leave_out: tuple[str, ...] = ()


_TEXTS = ("channels", "drop_labels", "leave_out")
_KINDS: dict[str, type] = {
    "seconds": float,
    "overlap": float,
    "label_rule": str,
    "majority": float,
    "transitions": bool,
    "drop_labels": tuple,
    "leave_out": tuple,
    "min_subjects_per_class": int,
    "channels": tuple,
    "lost": str,
    "fill_seconds": float,
    "resample_hz": float,
    "labels": str,
    "rate_hz": float,
    "time": str,
    "columns": str,
    "units": str,
    "label": str,
    "subject": str,
    "assume_yes": bool,
    "subject_from": str,
    "join": bool,
}
_KIND_NAMES = {float: "a number", int: "a whole number", str: "text", bool: "true or false", tuple: "names"}
_CHOICES = {"label_rule": get_args(LabelRule), "lost": ("refuse", "gap")}


def import_options(preset: str | None, flags: Mapping[str, Any]) -> ImportOptions:
    """Build the options of an import.

    Parameters
    ----------
    preset
        Name of a shipped preset or path of a TOML file; None for no preset.
    flags
        By the names of the attributes; those that are None say nothing and leave it to the preset.

    Raises
    ------
    UsageError
        With every key of the preset or flag that is unknown or has a value of the wrong kind.
    BadInputError
        When the preset or the label file cannot be read.
    """
    values = {**_preset(preset), **{key: value for key, value in flags.items() if value is not None}}
    values = {key: _plain(key, value) for key, value in values.items()}
    problems = [problem for key, value in values.items() if (problem := _problem(key, value))]
    if problems:
        raise UsageError(f"{len(problems)} option(s) of the import are wrong", problems=problems)
    if "labels" in values:
        values["labels"] = read_label_file(Path(values["labels"]))
    return ImportOptions(
        read=ReadOptions(**_of(ReadOptions, values)),
        cleaning=Cleaning(**_of(Cleaning, values)),
        cut=Cut(**_of(Cut, values)),
        subject_from=values.get("subject_from"),
        join=values.get("join", False),
        leave_out=values.get("leave_out", ()),
    )


def preset_names() -> list[str]:
    """Names of the shipped presets."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def _preset(name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    path = Path(name) if name.endswith(".toml") else PRESETS / f"{name}.toml"
    if not path.is_file():
        raise UsageError(
            f"--preset {name}: no such preset",
            hint=f"shipped are {', '.join(preset_names())}; or a .toml file",
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: not readable as TOML ({error})") from None


def _plain(key: str, value: Any) -> Any:
    if key in _TEXTS and isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list):
        return tuple(value)
    return float(value) if _KINDS.get(key) is float and type(value) is int else value


def _problem(key: str, value: Any) -> str:
    if key not in _KINDS:
        return f"{key}: no such option; known are {', '.join(_KINDS)}"
    kind = _KINDS[key]
    name = "--" + key.replace("_", "-")
    items: Any = value if kind is tuple else ()
    if type(value).__name__ != kind.__name__ or not all(isinstance(item, str) for item in items):
        return f"{name}: {value!r}, expected {_KIND_NAMES[kind]}"
    if key in _CHOICES and value not in _CHOICES[key]:
        return f"{name} {value}: expected one of {', '.join(_CHOICES[key])}"
    if key in ("rate_hz", "resample_hz") and not 0 < value < 1e6:
        return f"{name} {value}: expected a positive rate in Hz"
    if key == "fill_seconds" and not 0 <= value < float("inf"):
        return f"{name} {value}: expected 0 or more seconds"
    return ""


def _of(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    return {item.name: values[item.name] for item in fields(kind) if item.name in values}
