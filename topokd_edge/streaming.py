"""Windows from samples as they arrive, the same as those cut from a whole recording.

Light on purpose (standard library and numpy): an app embeds it beside a bundle.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.manifest import Normalisation

FARTHEST = 1e6
"""Standard deviations from the mean of training: no sensor is so far off, a wrong unit or broken data is."""

DEFAULT_OVERLAP = 0.5
"""Share that a window repeats of the one before, where an app says nothing else."""


def window_step(length: int, overlap: float) -> int:
    """Return how many samples a window begins after the one before.

    Parameters
    ----------
    length
        Samples per window.
    overlap
        Share of a window that the next one repeats, 0 <= overlap < 1.

    Raises
    ------
    UsageError
        When the overlap is out of range, or so near to 1 that windows would not move on.
    """
    if not 0 <= overlap < 1:
        raise UsageError(f"--overlap {overlap}: expected 0 or more and less than 1, for example 0.5")
    step = round(length * (1 - overlap))
    if step < 1:
        raise UsageError(f"--overlap {overlap}: windows of {length} samples would not move on")
    return step


class WindowStream:
    """Cuts samples, pushed in pieces of any size, into windows.

    However the samples are divided among calls, the windows are those that `topokd_edge.data.windows` cuts
    from the same stretch, and `normalisation` is applied as in training.

    Parameters
    ----------
    channels
        Values per sample.
    length
        Samples per window.
    overlap
        Share of a window that the next one repeats, 0 <= overlap < 1.
    normalisation
        Of the bundle's manifest; None leaves the samples as they are.

    Raises
    ------
    UsageError
        When the numbers make no sense, or the normalisation is for other channels.
    """

    def __init__(
        self,
        channels: int,
        length: int,
        overlap: float = DEFAULT_OVERLAP,
        normalisation: Normalisation | None = None,
    ) -> None:
        if channels < 1 or length < 1:
            raise UsageError(f"{channels} channels and windows of {length} samples: expected 1 or more")
        if normalisation is not None and len(normalisation.mean) != channels:
            raise UsageError(f"a normalisation of {len(normalisation.mean)} channels for {channels} channels")
        self._length, self._step = length, window_step(length, overlap)
        self._normalisation = normalisation
        self._pending = np.empty((0, channels), dtype=np.float32)

    @property
    def pending(self) -> int:
        """Samples kept for the next window; less than its length."""
        return len(self._pending)

    def push(self, samples: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Take samples and return the windows that they complete.

        Parameters
        ----------
        samples
            Shape (n, channels), or (channels,) for a single sample, in the units of the manifest; n may be 0.

        Returns
        -------
        ndarray
            float32, shape (windows, channels, length), normalised; often no window at all.

        Raises
        ------
        BadInputError
            When the shape is wrong, a value is not finite, or it is more than a million standard deviations
            from the mean of training; none of the samples is taken then.
        """
        new = self._checked(samples)
        known = np.concatenate([self._pending, new])
        count = max(0, (len(known) - self._length) // self._step + 1)
        self._pending = known[count * self._step :].copy()
        if count == 0:
            return np.empty((0, new.shape[1], self._length), dtype=np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(known, self._length, axis=0)[:: self._step][:count]
        cut = np.ascontiguousarray(windows)
        return cut if self._normalisation is None else self._normalisation.apply(cut)

    def gap(self) -> None:
        """Say that samples were lost here: no window crosses this place, the next begins after it."""
        self._pending = self._pending[:0]

    def _checked(self, samples: npt.ArrayLike) -> npt.NDArray[np.float32]:
        channels = self._pending.shape[1]
        try:
            with np.errstate(over="ignore"):  # what is beyond float32 is then refused as infinite
                new = np.asarray(samples).astype(np.float32)
        except (TypeError, ValueError) as error:
            raise BadInputError(
                f"samples are not numbers of shape (n, {channels} channels) ({error})"
            ) from None
        new = new[None] if new.ndim == 1 else new
        if new.ndim != 2 or new.shape[1] != channels:
            raise BadInputError(f"samples have shape {new.shape}, expected (n, {channels} channels)")
        if not np.isfinite(new).all():
            row, channel = np.argwhere(~np.isfinite(new))[0].tolist()
            raise BadInputError(
                f"sample {row}, channel {channel}: {new[row, channel]}, expected a finite number",
                hint="call gap() where samples were lost, and push on after it",
            )
        self._refuse_far(new)
        return new

    def _refuse_far(self, new: npt.NDArray[np.float32]) -> None:
        if self._normalisation is None:
            return
        mean, std = (np.asarray(value) for value in (self._normalisation.mean, self._normalisation.std))
        away = np.abs(new - mean) / std
        if (away > FARTHEST).any():
            row, channel = np.argwhere(away > FARTHEST)[0].tolist()
            raise BadInputError(
                f"sample {row}, channel {channel}: {new[row, channel]:g} is {away[row, channel]:.0e} "
                "standard deviations from the mean of the training data",
                hint="check the unit of this channel; call gap() where the sensor failed",
            )
