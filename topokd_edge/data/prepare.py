"""From a file to a window set in one step, as the command line and the demonstration do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topokd_edge.data.check import acceleration_norms_g, check_recordings, select_channels
from topokd_edge.data.importers import importer
from topokd_edge.data.recording import Recording
from topokd_edge.data.windows import make_windows
from topokd_edge.data.windowset import WindowSet


@dataclass(frozen=True, slots=True)
class Imported:
    """A window set, the recordings it was cut from, and the warnings of each recording."""

    windows: WindowSet
    recordings: tuple[Recording, ...]
    warnings: tuple[tuple[str, ...], ...]

    def recordings_account(self) -> list[dict[str, Any]]:
        """Describe each recording as JSON-able data; norms in g, gaps in seconds."""
        return [
            {
                "file": item.source,
                "subject": item.subject,
                "session": item.session,
                "device": item.device,
                "rate_hz": item.rate_hz,
                "samples": int(item.samples.shape[1]),
                "channels": list(item.channels),
                "units": list(item.units),
                "start": None,
                "gaps": [{"after_sample": gap.after_sample, "seconds": gap.seconds} for gap in item.gaps],
                "median_norm_g": _oddest_norm(item),
                "warnings": list(warnings),
            }
            for item, warnings in zip(self.recordings, self.warnings, strict=True)
        ]


def import_windows(
    format_name: str,
    path: Path | None,
    *,
    seconds: float,
    overlap: float,
    channels: Sequence[str] = (),
    min_subjects_per_class: int = 0,
) -> Imported:
    """Read, check and cut recordings.

    Parameters
    ----------
    format_name
        A name of `topokd_edge.data.importers.IMPORTERS`.
    path
        What to read; None for a format that brings its own data.
    seconds, overlap, min_subjects_per_class
        See `make_windows`.
    channels
        Keep these, in this order; empty keeps all.

    Raises
    ------
    UsageError, BadInputError, MissingError
        As the importer, `check_recordings` and `make_windows` say.
    """
    chosen = importer(format_name)
    recordings = chosen.read(path)
    if channels:
        recordings = select_channels(recordings, channels)
    warnings = check_recordings(recordings)
    credit, licence = chosen.about(path)
    windows = make_windows(
        recordings,
        seconds=seconds,
        overlap=overlap,
        drop_rare_classes=min_subjects_per_class,
        made={
            "format": format_name,
            "source": path.name if path else format_name,
            "credit": credit,
            "licence": licence,
            "recordings": len(recordings),
        },
    )
    return Imported(windows, tuple(recordings), tuple(warnings))


def _oddest_norm(recording: Recording) -> float | None:
    """Median norm of the accelerometer that is farthest from 1 g; None without one."""
    norms = acceleration_norms_g(recording).values()
    return max(norms, key=lambda norm: max(norm, 1 / max(norm, 1e-9)), default=None)
