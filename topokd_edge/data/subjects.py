"""Who a file is of, where only its place or name says so."""

from __future__ import annotations

import re
from pathlib import Path

from topokd_edge.errors import BadInputError, UsageError

RULES = "folder, name:REGEX (its first group is the subject), or literal:ID"
_LONGEST_NAME = 255


def subject_of(rule: str, path: Path) -> str:
    """Return the subject of a file by a rule.

    Parameters
    ----------
    rule
        `folder`: the name of the folder the file is in; `name:REGEX`: the first group of the regular
        expression where it is first found in the file name; `literal:ID`: that text.
    path
        The file.

    Raises
    ------
    UsageError
        When the rule is none of these.
    BadInputError
        When it gives no subject for this file.
    """
    kind, _, text = rule.partition(":")
    if rule == "folder":
        found = path.absolute().parent.name
    elif kind == "literal" and text.strip():
        found = text
    elif kind == "name":
        found = _group(rule, text, path)
    else:
        raise UsageError(f"--subject-from {rule!r}: expected {RULES}")
    if not found.strip():
        raise BadInputError(f"{path}: --subject-from {rule!r} gives an empty subject")
    return found.strip()


def _group(rule: str, expression: str, path: Path) -> str:
    """Return the first group of the expression in the name of the file."""
    try:
        pattern = re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"--subject-from {rule!r}: not a regular expression: {error}") from None
    if not pattern.groups:
        raise UsageError(
            f"--subject-from {rule!r}: the expression has no group",
            hint="put what is the subject in parentheses, as in name:'sub(\\d+)'",
        )
    if len(path.name) > _LONGEST_NAME:
        raise BadInputError(f"{path}: a name of {len(path.name)} letters, at most {_LONGEST_NAME}")
    match = pattern.search(path.name)
    if match is None or match[1] is None:
        raise BadInputError(
            f"{path}: its name does not fit --subject-from {rule!r}",
            hint="correct the expression or the name",
        )
    return match[1]
