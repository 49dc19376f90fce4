"""Time persistence images, ours beside ripser and persim: python benchmarks/topology.py [result.json]."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from topokd_edge.cli import console
from topokd_edge.files import write_json
from topokd_edge.topology.bench import bench, table_rows


def main() -> None:
    cases = bench()
    columns, rows = table_rows(cases)
    console.table("persistence images, microseconds per window, one thread", columns, rows)
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "topology.json")
    write_json(out, {"cases": [dataclasses.asdict(case) for case in cases]})


if __name__ == "__main__":
    main()
