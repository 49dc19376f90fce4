"""`topokd-edge verify`: every file of a bundle against its hashes and self-test vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topokd_edge.cli import console
from topokd_edge.cli.export import show_checks
from topokd_edge.errors import CheckFailedError


def verify(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder, as made by `topokd-edge export`.")],
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Check a bundle: hashes, manifest, and self-test vectors through every model file.

    Example: topokd-edge verify bundle
    """
    from topokd_export.verify import verify_bundle

    try:
        checks = verify_bundle(bundle)
    except CheckFailedError as error:
        if json:
            problems = list(error.problems) or [error.message]
            console.answer_json({"bundle": str(bundle), "ok": False, "checks": [], "problems": problems})
        raise
    if json:
        console.answer_json({"bundle": str(bundle), "ok": True, "checks": checks, "problems": []})
    else:
        show_checks(checks)
