"""Time persistence images, ours beside ripser, persim and gudhi: python benchmarks/topology.py [FOLDER].

Writes topology.json and topology.md in the folder, by default docs/results. One thread; all libraries take
turns on the same windows. `--only share gpu` measures these parts and keeps the other numbers of the folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import gudhi
import numpy as np
import numpy.typing as npt
from gudhi.representations import PersistenceImage
from threadpoolctl import threadpool_limits

from topokd_edge.cli import console
from topokd_edge.errors import MissingError
from topokd_edge.files import read_json, write_json, write_text
from topokd_edge.topology import batched
from topokd_edge.topology.bench import SHAPES, Case, bench_case, in_turns, synthetic_windows, table_rows
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import ImageParams, fit_params
from topokd_edge.topology.sublevel import diagram

Windows = npt.NDArray[np.float32]
WINDOWS = 32
LENGTHS = (100, 250, 500, 1000, 2500, 5000, 10000)
CHANNELS = (1, 3, 9, 18, 40)
PAIRS = (5, 10, 20, 40, 80, 160)
SIZES = (16, 32, 64, 128, 256)


def by_gudhi(window: Windows, params: ImageParams) -> list[Any]:
    """Sublevel diagrams by a cubical complex, images by gudhi's own class, on axes of [0, 1]."""
    rows, columns = params.size
    imager = PersistenceImage(
        bandwidth=params.sigma, weight=lambda pair: pair[1], resolution=[columns, rows], im_range=[0, 1, 0, 1]
    )
    images = []
    for channel, signal in enumerate(window):
        cubes = gudhi.CubicalComplex(vertices=signal.astype(np.float64))
        cubes.compute_persistence()
        pairs = cubes.persistence_intervals_in_dimension(0)
        low, high = params.birth_range[channel]
        longest = params.persistence_range[channel][1]
        pairs = pairs[np.isfinite(pairs[:, 1])]
        births, lives = (pairs[:, 0] - low) / (high - low), (pairs[:, 1] - pairs[:, 0]) / longest
        kept = lives > params.min_life
        births, lives = np.clip(births[kept], 0, 1), np.clip(lives[kept], 0, 1)
        images.append(imager.fit_transform([np.stack([births, births + lives], axis=1)]))
    return images


def against_gudhi(x: Windows, turns: int = 15) -> dict[str, Any]:
    """Time ours and gudhi's."""
    params = fit_params(x)
    ours, theirs = in_turns(
        turns,
        lambda turn: persistence_images(x, params, threads=1),
        lambda turn: by_gudhi(x[turn], params),
    )
    ours /= len(x)
    name = f"{x.shape[1]}x{x.shape[2]}"
    return {"name": name, "fast_us": ours, "gudhi_us": theirs, "speedup": theirs / ours, "threads": 1}


def teeth(pairs: int, length: int = 500, channels: int = 3, seed: int = 0) -> Windows:
    """Windows with about so many pairs in every channel, their turning points at random heights."""
    rng = np.random.default_rng(seed)
    heights = rng.uniform(0.0, 1.0, (WINDOWS, channels, 2 * pairs + 2))
    heights[..., ::2] -= 1.0
    place = np.linspace(0.0, 2 * pairs + 1, length)
    rows = [np.interp(place, np.arange(2 * pairs + 2), row) for row in heights.reshape(-1, 2 * pairs + 2)]
    return np.array(rows, dtype=np.float32).reshape(WINDOWS, channels, length)


def sweeps() -> dict[str, list[dict[str, Any]]]:
    """Change one thing at a time about 3 channels of 500 samples and images of 64x64."""

    def case(value: int, x: Windows, **options: Any) -> dict[str, Any]:
        return {"value": value, **dataclasses.asdict(bench_case(x, name=str(value), turns=3, **options))}

    noisy = synthetic_windows
    return {
        "samples": [case(length, noisy(8, 3, length, 100.0)) for length in LENGTHS],
        "channels": [case(channels, noisy(WINDOWS, channels, 500, 100.0)) for channels in CHANNELS],
        "pairs per channel": [case(pairs, teeth(pairs)) for pairs in PAIRS],
        "rows and columns": [case(size, noisy(8, 3, 500, 100.0), size=(size, size)) for size in SIZES],
    }


def diagrams_alone() -> list[dict[str, Any]]:
    """Time the diagram without the image."""
    rows = []
    for length in LENGTHS:
        x = synthetic_windows(15, 1, length, 100.0)[:, 0].astype(np.float64)
        (microseconds,) = in_turns(15, lambda turn, x=x: diagram(x[turn]))
        rows.append({"value": length, "fast_us": microseconds})
    return rows


def share_of_diagrams() -> dict[str, Any]:
    """Time what the backend "gpu" leaves on the CPU, beside all of "fast", one thread."""
    cases = []
    for layout in ("cells", "paper"):
        for shape in SHAPES:
            x = synthetic_windows(WINDOWS, *shape)
            params = fit_params(x, layout=layout)
            whole, part = in_turns(
                31,
                lambda turn, x=x, params=params: persistence_images(x, params, threads=1),
                lambda turn, x=x, params=params: batched.diagrams(x, params),
            )
            case = {"name": f"{x.shape[1]}x{x.shape[2]}", "layout": layout, "share": part / whole}
            cases.append({**case, "fast_us": whole / WINDOWS, "diagrams_us": part / WINDOWS})
    return {"machine": machine(), "cases": cases}


def on_gpu(windows: int = 8192, repeats: int = 5) -> dict[str, Any]:
    """Time the backends "gpu" and "fast" on all cores, wall time, or say that there is no GPU."""
    try:
        device = batched.cuda()
    except MissingError:
        return {"device": None, "cases": []}
    import torch

    cases = []
    for layout in ("cells", "paper"):
        for shape in SHAPES:
            x = synthetic_windows(windows, *shape)
            params = fit_params(x[:256], layout=layout)
            case: dict[str, Any] = {"name": f"{x.shape[1]}x{x.shape[2]}", "layout": layout}
            images = {}
            for backend in ("gpu", "fast"):
                times = []
                for _ in range(repeats + 1):  # the first one warms up
                    start = time.perf_counter()
                    images[backend] = persistence_images(x, params, backend=backend)[0]
                    times.append(time.perf_counter() - start)
                case[f"{backend}_us"] = 1e6 * float(np.median(times[1:])) / windows
            cases.append({**case, "max_rel_diff": float(np.abs(images["gpu"] - images["fast"]).max())})
    return {"device": torch.cuda.get_device_name(device), "machine": machine(), "cases": cases}


def gpu_text(share: dict[str, Any], gpu: dict[str, Any]) -> list[str]:
    """Return the part of the page on what a GPU brings."""
    rows = [
        [
            case["name"],
            case["layout"],
            f"{case['fast_us']:.0f}",
            f"{case['diagrams_us']:.0f}",
            f"{case['share']:.0%}",
            f"{1 / case['share']:.1f}x",
        ]
        for case in share["cases"]
    ]
    text = [
        "## What a GPU could bring",
        'The backend "gpu" computes diagrams on the CPU and draws on the GPU. CPU time per window of "fast", '
        "and of the diagrams alone, one thread; were drawing and copying free, a GPU would bring the last "
        f"column at most. {share['machine']}.",
        _table(["channels x samples", "layout", "fast us", "diagrams us", "share", "at most"], rows),
    ]
    if gpu["device"] is None:
        return [*text, "The backend itself was not measured: there was no CUDA device."]
    rows = [
        [
            case["name"],
            case["layout"],
            f"{case['gpu_us']:.1f}",
            f"{case['fast_us']:.1f}",
            f"{case['fast_us'] / case['gpu_us']:.1f}x",
            f"{case['max_rel_diff']:.1e}",
        ]
        for case in gpu["cases"]
    ]
    columns = ["channels x samples", "layout", "gpu us", "fast us", "speed-up", "largest difference"]
    measured = f"Wall time per window, all cores: {gpu['device']}; {gpu['machine']}."
    return [*text, measured, _table(columns, rows)]


def markdown(document: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    columns, rows = table_rows([Case(**case) for case in document["cases"]])
    paper = table_rows([Case(**case) for case in document["paper_layout"]])[1]
    beside = [
        [case["name"], f"{case['fast_us']:.0f}", f"{case['gudhi_us']:.0f}", f"{case['speedup']:.0f}x"]
        for case in document["gudhi"]
    ]
    text = [
        "# What a persistence image costs",
        "Made by `python benchmarks/topology.py`; all digits are in [topology.json](topology.json). CPU time "
        "in microseconds per window, one thread, medians; all take turns on the same windows, a noisy 2 Hz "
        "swing in the steps of a 12-bit sensor. Other work ran on the machine, so that ratios say more than "
        "times. "
        f"{document['machine']}; {document['versions']}.",
        "## Ours beside ripser and persim's PersistenceImager",
        _table(columns, rows),
        "## The published layout, ours beside ripser and persim's PersImage",
        _table(columns, paper),
        "## Ours beside gudhi: cubical complex and representations.PersistenceImage",
        "Gudhi takes the density at points where the others integrate over pixels, so the images differ.",
        _table(["channels x samples", "fast us", "gudhi us", "speed-up"], beside),
        "## How the cost grows",
        "Three channels of 500 samples, images of 64x64, one thing changed at a time. Time goes with "
        "channels, with pairs, and with pixels from 64x64 up; a diagram is linear in samples.",
    ]
    for name, cases in document["sweeps"].items():
        body = [
            [
                str(case["value"]),
                f"{case['pairs_per_channel']:.1f}",
                f"{case['fast_us']:.0f}",
                f"{case['reference_us']:.0f}",
                f"{case['speedup']:.0f}x",
            ]
            for case in cases
        ]
        text.append(_table([name, "pairs", "fast us", "reference us", "speed-up"], body))
    alone = [[str(case["value"]), f"{case['fast_us']:.1f}"] for case in document["diagram_alone"]]
    text.append(_table(["samples", "one diagram alone us"], alone))
    text += gpu_text(document["share_of_diagrams"], document["gpu"])
    return "\n\n".join(text) + "\n"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def beside_others() -> dict[str, Any]:
    """Measure ours beside the other libraries."""
    windows = [synthetic_windows(WINDOWS, *shape) for shape in SHAPES]
    return {
        "machine": machine(),
        "versions": ", ".join(
            f"{name} {metadata.version(name)}" for name in ("numpy", "numba", "ripser", "persim", "gudhi")
        ),
        "cases": [dataclasses.asdict(bench_case(x)) for x in windows],
        "paper_layout": [dataclasses.asdict(bench_case(x, layout="paper")) for x in windows],
        "gudhi": [against_gudhi(x) for x in windows],
        "sweeps": sweeps(),
        "diagram_alone": diagrams_alone(),
    }


PARTS = {
    "others": beside_others,
    "share": lambda: {"share_of_diagrams": share_of_diagrams()},
    "gpu": lambda: {"gpu": on_gpu()},
}
"""What `--only` names: each gives some of the keys of the JSON."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs/results"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[], help="parts to measure anew")
    asked = parser.parse_args()
    document = read_json(asked.folder / "topology.json") if asked.only else {}
    for part in asked.only or PARTS:
        with threadpool_limits(limits=1):
            document.update(PARTS[part]())
    text = markdown(document)
    console.note(text)
    write_json(asked.folder / "topology.json", document)
    write_text(asked.folder / "topology.md", text)


if __name__ == "__main__":
    main()
