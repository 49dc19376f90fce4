"""What makes the C folder of a bundle an Arduino library, a PlatformIO library and a Zephyr module.

The sources stay flat. Formats: the Arduino library specification (rev. 2.2, flat layout), PlatformIO's
`library.json`, and Zephyr's modules.
"""

from __future__ import annotations

from importlib import resources

from topokd_export.c.integer_graph import IntegerGraph

LAYOUTS = (
    "library.properties",
    "library.json",
    "examples/classify/classify.ino",
    "examples/selftest/selftest.ino",
    "zephyr/module.yml",
    "zephyr/CMakeLists.txt",
    "zephyr/Kconfig",
)

_VERSION = "1.0.0"
"""Of the interface in `student.h`: a newer program must write the same text for an older bundle."""


def write_layouts(graph: IntegerGraph, rate_hz: float) -> dict[str, str]:
    """Return the files by path below the C folder; the same graph and rate (Hz) give the same text."""
    values = {
        "VERSION": _VERSION,
        "SENTENCE": f"An int8 activity model: {graph.input.rows} samples of {graph.input.channels} channels "
        f"at {rate_hz:g} Hz to {graph.output.channels} classes.",
    }
    folder = resources.files("topokd_export.c") / "layout"
    files = {path: (folder / path).read_text("utf-8") for path in LAYOUTS}
    for path in LAYOUTS:
        for key, value in values.items():
            files[path] = files[path].replace(f"@{key}@", value)
    return files
