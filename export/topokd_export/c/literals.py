"""Python values as C99 source text."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

LINE = 100
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-+.,:;()/=<>*")


def string(text: str) -> str:
    r"""Return a string literal of the text's UTF-8 bytes.

    Everything but letters, digits and harmless signs is an octal escape of three digits, which unlike \x
    cannot swallow the next character; so quotes, backslashes, newlines and trigraphs are safe.
    """
    return '"' + "".join(chr(b) if b in _PLAIN else f"\\{b:03o}" for b in text.encode("utf-8")) + '"'


def comment(text: str) -> str:
    """Return text that may stand in a comment: one line of ASCII that neither ends nor opens one."""
    ascii_only = text.encode("ascii", "replace").decode().replace("*/", "* /").replace("/*", "/ *")
    return "".join(c if c.isprintable() and c not in "\\?" else "." for c in ascii_only)


def real(value: float) -> str:
    """Return a float literal with all its bits: nine digits are enough for 32-bit floats."""
    digits = format(float(np.float32(value)), ".9g")
    return f"{digits}f" if "." in digits or "e" in digits else f"{digits}.0f"


def numbers(values: Iterable[int]) -> str:
    """Return integers separated by commas, wrapped and indented."""
    # The most negative number of C has no literal of its own.
    return _wrapped("INT32_MIN" if value == -(2**31) else str(value) for value in values)


def reals(values: npt.ArrayLike) -> str:
    """Return float literals separated by commas, wrapped and indented."""
    return _wrapped(map(real, np.asarray(values, dtype=np.float32).ravel().tolist()))


def _wrapped(words: Iterable[str]) -> str:
    lines, line = [], "   "
    for word in words:
        if len(line) + len(word) + 2 > LINE:
            lines.append(line)
            line = "   "
        line += f" {word},"
    return "\n".join([*lines, line]).rstrip(",")
