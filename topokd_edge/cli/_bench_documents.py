"""Reading answers of `bench` from files: checked, several as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topokd_bench import documents

from topokd_edge.errors import BadInputError
from topokd_edge.files import read_json


def read_documents(paths: Sequence[Path]) -> dict[str, Any]:
    """Read one or more answers of `bench`, of which a later one replaces the same results of those before.

    Raises
    ------
    BadInputError
        When a file does not exist, or is no answer of `bench`; all such files are named.
    """
    found, problems = [], []
    for path in paths:
        try:
            document = read_json(path)
            documents.check(document, str(path))
            found.append(document)
        except BadInputError as error:
            problems.append(error.message)
    if problems:
        raise BadInputError(
            problems[0] if len(problems) == 1 else "not answers of bench",
            problems=problems if len(problems) > 1 else (),
            hint="topokd-edge bench BUNDLE --on TARGET --out FILE.json writes one",
        )
    return documents.complete(documents.merge(found))
