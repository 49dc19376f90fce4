"""Deal ECGs whose people are not known, or who are one person, into groups that can be tested in turn.

python benchmarks/ecg_groups.py cases AtrialFibrillation_TRAIN.ts AtrialFibrillation_TEST.ts --out FOLDER
python benchmarks/ecg_groups.py parts 100.hea --number 6 --out FOLDER

`cases`: `.ts` files of equally many cases of each class, one of each in a group: FOLDER/group-01/cases.ts.
`parts`: a WFDB record cut into equally long records in a row, with their annotations: FOLDER/100_part1.hea.
A group is no person. What a run on groups reaches says nothing of new people.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from topokd_edge.errors import BadInputError, TopokdError
from topokd_edge.files import new_folder, write_text


def groups_of(path: Path) -> Iterator[str]:
    """Yield the text of one `.ts` file per group: the k-th case of every class.

    Raises
    ------
    BadInputError
        When the classes have different numbers of cases.
    """
    head, _, body = path.read_text("utf-8").partition("@data\n")
    by_class: dict[str, list[str]] = {}
    for line in body.splitlines():
        if line.strip():
            by_class.setdefault(line.rsplit(":", 1)[-1].strip(), []).append(line)
    if len({len(lines) for lines in by_class.values()}) != 1:
        counts = ", ".join(f"{name}: {len(lines)}" for name, lines in sorted(by_class.items()))
        raise BadInputError(f"{path}: expected as many cases of each class, found {counts or 'none'}")
    for lines in zip(*by_class.values(), strict=True):
        yield "\n".join([head + "@data", *lines]) + "\n"


def write_cases(paths: list[Path], folder: Path) -> int:
    """Write the groups of all files; return how many there are."""
    texts = [text for path in paths for text in groups_of(path)]
    for number, text in enumerate(texts, start=1):
        write_text(folder / f"group-{number:02}" / "cases.ts", text)
    return len(texts)


def write_parts(header: Path, number: int, folder: Path) -> int:
    """Cut a record and its `.atr` into `number` parts of equal length; the annotations keep their places."""
    import wfdb

    name = str(header.with_suffix(""))
    record, notes = wfdb.rdrecord(name, physical=False), wfdb.rdann(name, "atr")
    edges = np.linspace(0, record.sig_len, number + 1).astype(int)
    for part, (start, stop) in enumerate(pairwise(edges), start=1):
        called = f"{header.stem}_part{part}"
        wfdb.wrsamp(
            called,
            fs=record.fs,
            units=record.units,
            sig_name=record.sig_name,
            d_signal=record.d_signal[start:stop],
            fmt=record.fmt,
            adc_gain=record.adc_gain,
            baseline=record.baseline,
            write_dir=str(folder),
        )
        mine = np.flatnonzero((notes.sample >= start) & (notes.sample < stop))
        symbols = [notes.symbol[index] for index in mine]
        wfdb.wrann(called, "atr", notes.sample[mine] - start, symbol=symbols, write_dir=str(folder))
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", choices=("cases", "parts"))
    parser.add_argument("path", type=Path, nargs="+")
    parser.add_argument("--number", type=int, default=6, help="of parts")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    try:
        with new_folder(asked.out) as folder:
            if asked.kind == "cases":
                made = write_cases(asked.path, folder)
            else:
                made = write_parts(asked.path[0], asked.number, folder)
    except TopokdError as error:
        sys.exit(f"error: {error}")
    print(f"{asked.out}: {made} groups")


if __name__ == "__main__":
    main()
