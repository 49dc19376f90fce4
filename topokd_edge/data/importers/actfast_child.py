"""The process that reads one file with actfast and sends what it read; started by `actfast_process` alone.

It imports nothing else, so that it starts fast.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any


def main() -> None:
    """Answer one question: a line of JSON, then the arrays as plain bytes."""
    question = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (question["bytes"], question["bytes"]))
    resource.setrlimit(resource.RLIMIT_CPU, (question["seconds"], question["seconds"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe = sys.stdout.buffer
    try:
        import actfast

        read: Any = actfast.read(question["path"], lenient=True)
        whole = _arrays(read["timeseries"], question["whole"])
        rows = _arrays(read["timeseries"], question["rows"])
        if len({len(array) for array in rows.values()}) > 1:
            raise ValueError("its arrays differ in length")
    except BaseException as error:  # a panic of the native code is no Exception
        pipe.write(json.dumps({"error": str(error)[:1000]}).encode() + b"\n")
        return
    length = max((len(array) for array in rows.values()), default=0)
    head = {
        "metadata": read["metadata"],
        "warnings": read["warnings"][:20],
        "whole": [[name, array.dtype.str, array.shape] for name, array in whole.items()],
        "rows": [[name, array.dtype.str, array.shape] for name, array in rows.items()],
        "length": length,
    }
    pipe.write(json.dumps(head).encode() + b"\n")
    for array in whole.values():
        pipe.write(array.tobytes())
    for start in range(0, length, question["chunk"]):
        for array in rows.values():
            pipe.write(array[start : start + question["chunk"]].tobytes())
    pipe.flush()


def _arrays(tables: dict[str, dict[str, Any]], names: list[str]) -> dict[str, Any]:
    found = {}
    for name in names:
        table, column = name.split("/")
        if column in tables.get(table, {}):
            found[name] = tables[table][column]
    return found


if __name__ == "__main__":
    main()
