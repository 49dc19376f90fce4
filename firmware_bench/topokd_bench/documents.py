"""Several answers of `bench` as one: a device at a time is measured, and one page shows them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from topokd_bench.boards import board_names, open_board
from topokd_bench.result import MODES, BenchResult
from topokd_edge.bundle import BadInputError


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document in which every board has its name and memory, also one on a wire."""
    return {**document, "results": [_with_board(entry) for entry in document["results"]]}


def _with_board(entry: dict[str, Any]) -> dict[str, Any]:
    prefix, _, name = entry["target"].partition(":")
    facts = entry.get("device") or {}
    if prefix == "serial":
        name = facts.get("name", "")
    if prefix not in ("mcu", "serial") or name not in board_names():
        return entry
    board = open_board(name)
    known = {"board_ram_bytes": board.ram_bytes, "board_flash_bytes": board.flash_bytes}
    return {**entry, "device": {**known, "core": board.core, **facts, "name": board.title}}


def merge(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return answers of `bench` as one; of one, itself.

    A later one replaces the results of the same target, pipeline, runtime, threads and mode of those before;
    what one says of itself (notes, subjects) is kept of each.
    """
    if len(documents) == 1:
        return documents[0]
    results: list[dict[str, Any]] = []
    for document in documents:
        newer = {_key(entry) for entry in document["results"]}
        results = [entry for entry in results if _key(entry) not in newer] + document["results"]
    order = list(dict.fromkeys(entry["target"] for document in documents for entry in document["results"]))
    costs = [document["int8_cost"] for document in documents if document.get("int8_cost")]
    notes = [note for document in documents for note in document.get("notes") or []]
    return {
        "results": sorted(results, key=lambda entry: order.index(entry["target"])),
        "int8_cost": costs[-1] if costs else None,
        "subjects": list(
            dict.fromkeys(who for document in documents for who in document.get("subjects") or [])
        ),
        "notes": list(dict.fromkeys([*notes, *_mixed(documents)])),
        "partial": any(document.get("partial") for document in documents),
    }


def check(document: Any, where: str) -> None:
    """Refuse what `bench` could not have written.

    Raises
    ------
    BadInputError
        When it is no answer of `bench`, or a result has a figure that cannot be; the message names it.
    """
    if not isinstance(document, dict):
        raise BadInputError(f"{where}: expected a JSON object, found {type(document).__name__}")
    results = document.get("results")
    if not isinstance(results, list):
        raise BadInputError(f"{where}: no results of bench in it")
    for number, entry in enumerate(results, start=1):
        try:
            BenchResult.from_dict(entry)
            _check_accuracy(entry)
        except (TypeError, ValueError, AttributeError) as error:
            raise BadInputError(f"{where}, result {number}: {error}") from None


def _check_accuracy(entry: dict[str, Any]) -> None:
    shares = [entry.get("accuracy"), *(entry.get("accuracy_ci95") or ())]
    if not all(share is None or 0 <= share <= 1 for share in shares):
        raise ValueError(f"accuracy and its interval: expected shares of one, found {shares}")


def _key(entry: dict[str, Any]) -> tuple[Any, ...]:
    mode = entry.get("mode") or MODES[0]
    return (entry["target"], entry["pipeline"], entry["runtime"], entry.get("threads", 1), mode)


def _mixed(documents: Sequence[dict[str, Any]]) -> list[str]:
    """Return what does not belong together: accuracies on other people, or of other bundles."""
    notes = []
    subjects = dict.fromkeys(
        tuple(document["subjects"]) for document in documents if document.get("subjects")
    )
    if len(subjects) > 1:
        groups = " and ".join(f"({', '.join(map(str, group))})" for group in subjects)
        notes.append(
            f"the files have accuracies on different held-out subjects, {groups}: do not compare them"
        )
    bundles = {
        entry["self_test"]["bundle"]
        for document in documents
        for entry in document["results"]
        if (entry.get("self_test") or {}).get("bundle")
    }
    if len(bundles) > 1:
        notes.append(
            f"the files are of {len(bundles)} different bundles: their figures are of different students"
        )
    return notes
