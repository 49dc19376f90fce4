"""Zero-dimensional sublevel-set persistence of one-dimensional signals.

A signal is a path: vertex t enters at x[t], the edge between t and t+1 at max(x[t], x[t+1]). Components of
{x <= level} are born in local minima; where two meet, the one with the higher minimum dies (elder rule,
H. Edelsbrunner and J. Harer, Computational Topology, 2010, VII.1).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import BadInputError, UsageError

Essential = Literal["drop", "cap", "keep"]
"""The class of the global minimum never dies: leave it out, let it die at a level (by default the signal's
maximum), or keep its infinite death."""


def diagram(
    signal: npt.ArrayLike, *, essential: Essential = "drop", cap: float | None = None
) -> npt.NDArray[np.float64]:
    """Return birth and death of every component of the sublevel sets of `signal`.

    Linear in the number of samples.

    Parameters
    ----------
    signal
        One channel, shape (samples,), finite, at least one sample.
    essential
        "drop" leaves out the class of the global minimum; "cap" lets it die at `cap`; "keep" gives it the
        death inf.
    cap
        Level in units of the signal, for "cap"; None is the maximum of the signal. The class is left out
        where it would not be born before it.

    Returns
    -------
    ndarray
        float64, shape (pairs, 2), units of the signal, only pairs with death > birth, in no particular
        order but with the essential class last.

    Raises
    ------
    BadInputError
        When the signal is not one-dimensional, empty, or holds NaN or infinity; the message names the sample.
    UsageError
        When `essential` is not one of the three, or a cap is given for another.
    """
    code = essential_code(essential, cap)
    values = np.ascontiguousarray(signal, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise BadInputError(f"signal: expected shape (samples,) with at least one sample, got {values.shape}")
    refuse_non_finite(values[np.newaxis, np.newaxis])
    from topokd_edge.topology import _kernels

    minima, walls = np.empty(values.size), np.empty(values.size)
    births, deaths = np.empty(values.size + 1), np.empty(values.size + 1)
    found = _kernels.pairs(values, *code, births, deaths, minima, walls)
    return np.stack([births[:found], deaths[:found]], axis=1)


def essential_code(essential: str, cap: float | None) -> tuple[int, float]:
    """Return what the compiled code takes for `essential` and `cap`.

    Raises
    ------
    UsageError
        When `essential` is not "drop", "cap" or "keep", or a cap is given for another than "cap".
    """
    problems = essential_problems(essential, cap)
    if problems:
        raise UsageError(problems[0])
    from topokd_edge.topology import _kernels

    if essential == "cap":
        return (_kernels.CAP, 0.0) if cap is None else (_kernels.CAP_AT, cap)
    return (_kernels.KEEP if essential == "keep" else _kernels.DROP), 0.0


def essential_problems(essential: str, cap: float | None) -> list[str]:
    """Return what is wrong with the two."""
    if essential not in get_args(Essential):
        return [f"essential = {essential!r}: expected one of {', '.join(get_args(Essential))}"]
    if cap is not None and (essential != "cap" or not math.isfinite(cap)):
        return [f"essential_cap = {cap}: expected a finite level, with essential = 'cap'"]
    return []


def refuse_non_finite(
    x: npt.NDArray[np.floating],
    *,
    windows: npt.NDArray[np.int64] | None = None,
    names: list[str] | None = None,
) -> None:
    """Raise BadInputError naming the places of NaN and infinity in windows.

    Parameters
    ----------
    x
        Shape (windows, channels, length).
    windows
        Number of each window, for the message; None counts from 0.
    names
        What else to call each window, shape (windows,): subject, session, place.
    """
    good = np.isfinite(x)
    if good.all():
        return
    problems = []
    for window, channel in np.argwhere(~good.all(axis=2))[:10]:
        bad = np.flatnonzero(~good[window, channel])
        number = window if windows is None else windows[window]
        called = f" ({names[window]})" if names else ""
        problems.append(
            f"window {number}{called}, channel {channel}, sample {bad[0]}: "
            f"{x[window, channel, bad[0]]}, {len(bad)} bad samples of {x.shape[2]}"
        )
    raise BadInputError(
        f"{int((~good).sum())} samples are NaN or infinite; persistence needs finite signals",
        hint="drop or fill these samples when the windows are made",
        problems=problems,
    )
