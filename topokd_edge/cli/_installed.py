"""What is installed, against what the distribution says it needs; and what works when it is tried."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

DISTRIBUTION = "topokd-edge"
BASE = "base"
_COLLECTIONS = ("all", "dev", "cross")
"""Extras that repeat others, are for working on the program itself, or need an environment of their own."""
State = Literal["ok", "missing", "wrong version"]

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*\(?(?P<wanted>[^;)]*)\)?\s*(?:;\s*(?P<marker>.*))?"
)
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
_CLAUSE = re.compile(r"(>=|<=|==|<|>)\s*([0-9][^,\s]*)")


@dataclass(frozen=True)
class Package:
    """A package that an extra asks for.

    Attributes
    ----------
    extra
        Name of the extra; `base` for what is always needed.
    name, wanted
        Of the requirement, e.g. `torch` and `<2.15,>=2.9`.
    found
        Installed version; empty when there is none.
    """

    extra: str
    name: str
    wanted: str
    found: str

    @property
    def state(self) -> State:
        """Whether it is there in a version that will do."""
        if not self.found:
            return "missing"
        return "ok" if satisfies(self.found, self.wanted) else "wrong version"


def packages() -> list[Package]:
    """Return every package that the distribution's metadata names, by extra.

    What is wanted on some platforms only is left out, and so are the extras `all`, `dev` and `cross`.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        When the distribution itself is not installed.
    """
    found = []
    for text in metadata.requires(DISTRIBUTION) or []:
        match = _REQUIREMENT.fullmatch(text)
        if match is None or match["name"] == DISTRIBUTION:
            continue
        marker = match["marker"] or ""
        extra = _EXTRA.search(marker)
        if " and " in marker or (extra and extra[1] in _COLLECTIONS):
            continue
        wanted = match["wanted"].strip()
        found.append(
            Package(extra[1] if extra else BASE, match["name"], wanted, installed_version(match["name"]))
        )
    return found


def installed_version(name: str) -> str:
    """Return the version of an installed distribution, empty when it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def satisfies(version: str, wanted: str) -> bool:
    """Tell whether a version meets clauses such as `<2.15,>=2.9`, compared by their release numbers."""
    have = _release(version)
    for operator, bound in _CLAUSE.findall(wanted):
        limit = _release(bound)
        size = max(len(have), len(limit))
        left, right = (numbers + (0,) * (size - len(numbers)) for numbers in (have, limit))
        meets = {
            ">=": left >= right,
            "<=": left <= right,
            "==": left == right,
            "<": left < right,
            ">": left > right,
        }
        if not meets[operator]:
            return False
    return True


def try_import(code: str, *, timeout: float = 60.0) -> tuple[bool, str]:
    """Run `code` in a child, so that a library that crashes on import takes nothing with it.

    Returns
    -------
    tuple of bool and str
        Whether it worked, and the last line it printed or its error.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {timeout:g} s"
    lines = (child.stdout if child.returncode == 0 else child.stderr).strip().splitlines()
    last = lines[-1] if lines else ""
    if child.returncode < 0:
        return False, f"killed by signal {-child.returncode}: the wheel does not fit this CPU"
    return child.returncode == 0, last


def _release(version: str) -> tuple[int, ...]:
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in numbers[0].split(".")) if numbers else ()
