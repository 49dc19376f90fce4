"""`topokd-edge doctor`: what is installed, what is missing, what to do."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Annotated, Any

import typer

from topokd_edge.cli import console

if TYPE_CHECKING:
    from topokd_edge.cli._installed import Package


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")] = False,
) -> None:
    """Tell what is installed, what is missing, and what to do about it.

    Exit code 4 when something that every verb needs is missing.

    Example: topokd-edge doctor
    """
    from topokd_bench import device

    from topokd_edge.cli import _diagnosis, _installed

    packages = _installed.packages()
    runtimes = _diagnosis.try_runtimes()
    needed = _diagnosis.needed(packages)
    advice = [*_diagnosis.missing_extras(packages), *_diagnosis.runtime_advice(runtimes)]
    document: dict[str, Any] = {
        "ok": not needed,
        "python": platform.python_version(),
        "device": device.describe(),
        "torch_device": _diagnosis.torch_device(),
        "packages": [{**vars(item), "state": item.state} for item in packages],
        "runtimes": [
            {"runtime": name, "works": works, "message": said} for name, (works, said) in runtimes.items()
        ],
        "problems": needed,
        "advice": advice,
    }
    if as_json:
        console.answer_json(document)
    else:
        _show(document, packages)
    if needed:
        raise typer.Exit(4)


def _show(document: dict[str, Any], packages: list[Package]) -> None:
    rows = [[item.extra, item.name, item.wanted, item.found or "-", item.state] for item in packages]
    console.table("packages", ["extra", "package", "wanted", "found", "state"], rows)
    machine = document["device"]
    typer.echo(f"Python {document['python']} on {machine['os']}, {machine['machine']}")
    typer.echo(f"CPU {machine['cpu']}, {machine['usable_cores']} of {machine['cores']} cores usable")
    typer.echo(f"training on {document['torch_device'] or 'nothing: torch is not installed'}")
    for runtime in document["runtimes"]:
        typer.echo(f"{runtime['runtime']}: {'works' if runtime['works'] else runtime['message']}")
    for line in document["problems"]:
        console.fail(line)
    for line in document["advice"]:
        console.note(line)
    if not document["problems"] and not document["advice"]:
        typer.echo("nothing is missing")
