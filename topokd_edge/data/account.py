"""What was seen in the recordings of a window set, as JSON-able data."""

from __future__ import annotations

from typing import Any

from topokd_edge.data.check import acceleration_norms_g
from topokd_edge.data.recording import Recording
from topokd_edge.data.windowset import WindowSet


def account(windows: WindowSet) -> dict[str, Any]:
    """Describe the set, each of its recordings, and what was refused; norms in g, gaps in seconds."""
    warnings = windows.made.get("warnings") or [[] for _ in windows.recordings]
    return {
        "recordings": [
            _of_recording(item, warned) for item, warned in zip(windows.recordings, warnings, strict=True)
        ],
        "refused": windows.made.get("refused", []),
        "windows": windows.describe(),
    }


def _of_recording(item: Recording, warnings: list[str]) -> dict[str, Any]:
    clock = item.clock
    return {
        "file": item.source,
        "subject": item.subject,
        "session": item.session,
        "device": item.device,
        "rate_hz": item.rate_hz,
        "rate_estimated_hz": None if clock is None else clock.estimated_hz,
        "jitter_s": None if clock is None else clock.jitter_s,
        "drift_ppm": None if clock is None else clock.drift_ppm,
        "samples": int(item.samples.shape[1]),
        "filled_samples": sum(stop - start for start, stop in item.filled),
        "channels": list(item.channels),
        "units": list(item.units),
        "start": item.start,
        "gaps": [{"after_sample": gap.after_sample, "seconds": gap.seconds} for gap in item.gaps],
        "median_norm_g": _oddest_norm(item),
        "about": dict(item.about),
        "notes": list(item.notes),
        "warnings": list(warnings),
    }


def _oddest_norm(recording: Recording) -> float | None:
    """Median norm of the accelerometer that is farthest from 1 g; None without one."""
    norms = acceleration_norms_g(recording).values()
    return max(norms, key=lambda norm: max(norm, 1 / max(norm, 1e-9)), default=None)
