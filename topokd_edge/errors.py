"""The errors a user meets: each names the place, what was expected, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence


class TopokdError(Exception):
    """A failure that is explained to the user without a traceback.

    Parameters
    ----------
    message
        What is wrong and where (file, row, option), and what was expected.
    hint
        What to do next, one sentence or a command.
    problems
        All single problems found in an input, when there is more than one.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = tuple(problems)

    def __str__(self) -> str:
        lines = [self.message, *(f"  - {problem}" for problem in self.problems)]
        if self.hint:
            lines.append(f"What to do: {self.hint}")
        return "\n".join(lines)


class CheckFailedError(TopokdError):
    """A check that was asked for failed (exit code 1)."""

    exit_code = 1


class UsageError(TopokdError):
    """The command line or a recipe is wrong (exit code 2)."""

    exit_code = 2


class BadInputError(TopokdError):
    """A file or its content cannot be used (exit code 3)."""

    exit_code = 3


class MissingError(TopokdError):
    """Something needed is not there: a package, disk space, a tool (exit code 4)."""

    exit_code = 4


class DeviceError(TopokdError):
    """A device did not answer, or answered nonsense (exit code 5)."""

    exit_code = 5
