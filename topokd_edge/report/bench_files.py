"""Several answers of `bench` as one: a device at a time is measured, and one page shows them all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topokd_bench.result import BenchResult

from topokd_edge.errors import BadInputError
from topokd_edge.files import read_json
from topokd_edge.report.device_names import STEADY


def read_benches(paths: Sequence[Path]) -> dict[str, Any]:
    """Read one or more answers of `bench` and merge them.

    A later file replaces the results of the same target, pipeline, runtime, threads and mode of an earlier
    one; what one file says of itself (notes, subjects) is kept of each.

    Raises
    ------
    BadInputError
        When a file does not exist, or is no answer of `bench`; all such files are named.
    """
    documents, problems = [], []
    for path in paths:
        try:
            documents.append(_read(path))
        except BadInputError as error:
            problems.append(error.message)
    if problems:
        raise BadInputError(
            problems[0] if len(problems) == 1 else "not answers of bench",
            problems=problems if len(problems) > 1 else (),
            hint="topokd-edge bench BUNDLE --on TARGET --out FILE.json writes one",
        )
    return merge(documents)


def merge(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one document; of one document, itself."""
    if len(documents) == 1:
        return documents[0]
    results: list[dict[str, Any]] = []
    for document in documents:
        newer = {_key(entry) for entry in document["results"]}
        results = [entry for entry in results if _key(entry) not in newer] + document["results"]
    costs = [document["int8_cost"] for document in documents if document.get("int8_cost")]
    notes = [note for document in documents for note in document.get("notes") or []]
    return {
        "results": results,
        "int8_cost": costs[-1] if costs else None,
        "subjects": list(
            dict.fromkeys(who for document in documents for who in document.get("subjects") or [])
        ),
        "notes": list(dict.fromkeys([*notes, *_mixed(documents)])),
        "partial": any(document.get("partial") for document in documents),
    }


def _read(path: Path) -> dict[str, Any]:
    document = read_json(path)
    if not isinstance(document, dict):
        raise BadInputError(f"{path}: expected a JSON object, found {type(document).__name__}")
    results = document.get("results")
    if not isinstance(results, list):
        raise BadInputError(f"{path}: no results of bench in it")
    for number, entry in enumerate(results, start=1):
        try:
            BenchResult.from_dict(entry)
            _check_accuracy(entry)
        except (TypeError, ValueError, AttributeError) as error:
            raise BadInputError(f"{path}, result {number}: {error}") from None
    return document


def _check_accuracy(entry: dict[str, Any]) -> None:
    shares = [entry.get("accuracy"), *(entry.get("accuracy_ci95") or ())]
    if not all(share is None or 0 <= share <= 1 for share in shares):
        raise ValueError(f"accuracy and its interval: expected shares of one, found {shares}")


def _key(entry: dict[str, Any]) -> tuple[Any, ...]:
    mode = entry.get("mode") or STEADY
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
