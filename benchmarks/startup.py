"""Time `topokd-edge --help` beside a bare interpreter: python benchmarks/startup.py [result.json]."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from topokd_edge.cli import console
from topokd_edge.files import write_json

RUNS = 20
BASELINE = "python -c pass"
COMMANDS = {
    BASELINE: ["-c", "pass"],
    "python -c 'import numpy'": ["-c", "import numpy"],
    "topokd-edge --help": [
        "-c",
        "import sys; sys.argv[1:] = ['--help']; from topokd_edge.cli import main; main()",
    ],
}


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(RUNS + 1):
        for name, arguments in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
            if turn:  # the first turn fills the disk cache
                seconds[name].append(time.perf_counter() - began)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    cases = [
        {
            "name": name,
            "ms_median": round(1e3 * median[name], 1),
            "ms_min": round(1e3 * min(times), 1),
            "ratio": round(median[name] / median[BASELINE], 2),
        }
        for name, times in seconds.items()
    ]
    rows = [[str(value) for value in case.values()] for case in cases]
    console.table(f"start-up, median of {RUNS} in turn", list(cases[0]), rows)
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "startup.json")
    write_json(out, {"runs": RUNS, "baseline": BASELINE, "cases": cases})


if __name__ == "__main__":
    main()
