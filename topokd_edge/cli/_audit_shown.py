"""What `topokd-edge data audit` answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from topokd_edge.cli import console
from topokd_edge.data.audit import CHECKS, Audit
from topokd_edge.data.split import Fold


def answer(done: Audit, folds: Sequence[Fold]) -> None:
    """Print the audit as JSON."""
    console.answer_json(
        {
            "ok": not done.problems,
            "problems": list(done.problems),
            "checks": [
                {"name": name, "proves": CHECKS[name], "ok": not problems}
                for name, problems in done.found.items()
            ],
            "warnings": list(done.warnings),
            "folds": [asdict(fold) for fold in folds],
            "classes": [
                {"class": name, "windows": dict(zip(done.subjects, row, strict=True))}
                for name, row in zip(done.class_names, done.counts.tolist(), strict=True)
            ],
            "copied": [asdict(pair) for pair in done.copied],
            "looked_up": done.looked_up,
        }
    )


def show(done: Audit, folds: Sequence[Fold]) -> None:
    """Print the audit as tables; problems follow as the error."""
    rows = [[name, *map(str, row)] for name, row in zip(done.class_names, done.counts.tolist(), strict=True)]
    console.table("Windows by class and subject", ["class", *done.subjects], rows)
    split = [[str(f.fold), " ".join(f.test), " ".join(f.validation), " ".join(f.fit)] for f in folds]
    console.table("Folds by subject", ["fold", "test", "validation", "fit"], split)
    checks = [[CHECKS[name], "FAILED" if problems else "passed"] for name, problems in done.found.items()]
    console.table("Checks", ["check", "result"], checks)
    for warning in done.warnings:
        console.note(f"warning: {warning}")
