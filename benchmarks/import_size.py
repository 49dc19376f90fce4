"""How a large set is imported: time, peak memory, and the share of the disk's own speed.

Makes recordings of a wrist accelerometer (GENEActiv `.bin` with a label file, or one neutral `.npz`), imports
them with the command line in a process of its own, and compares the time with a plain copy of the same bytes:
everything the import must read and everything it must write, once, flushed to the disk.

    python benchmarks/import_size.py --samples 50_000_000 --out docs/results/import_size.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from topokd_edge.data.windowset import WindowSet

RATE_HZ = 100.0
SUBJECTS = 10
PAGE = 300
CLASSES = ("lying", "sitting", "walking", "running")
BOUT_S = 600.0
HEADER = """Device Identity
Device Unique Serial Code:000001
Device Type:GENEActiv
Device Model:1.1
Device Firmware Version:Ver4.08a date14Jul14
Calibration Date:2018-01-08 11:14:03:000

Device Capabilities
Accelerometer Range:-8 to 8

Configuration Info
Measurement Frequency:100 Hz
Start Time:2026-03-01 00:00:00:000
Time Zone:GMT +00:00

Subject Info
Subject Code:{subject}

Calibration Data
x gain:25600
x offset:0
y gain:25600
y offset:0
z gain:25600
z offset:0
Volts:40
Lux:919

Memory Status
Number of Pages:{pages}

"""


def counts(samples: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks of shape (pages * 300, 3): 12-bit counts of a wrist that lies, sits, walks and runs in turn."""
    rng = np.random.default_rng(seed)
    for start in range(0, samples, PAGE * 1000):
        at = (start + np.arange(min(PAGE * 1000, samples - start))) / RATE_HZ
        effort = (at // BOUT_S) % len(CLASSES)
        swing = 40 * effort * np.sin(2 * np.pi * (0.5 + 0.5 * effort) * at)
        noise = rng.normal(0, 2 + 8 * effort[:, None], (len(at), 3))
        yield np.clip(np.stack([swing, -swing, 256 + swing], axis=1) + noise, -2048, 2047).astype(np.int16)


def write_geneactiv(folder: Path, samples: int) -> list[str]:
    """One file per subject and a label file; returns what the import is told."""
    folder.mkdir()
    each = samples // SUBJECTS // PAGE * PAGE
    rows = ["subject,start,end,label"]
    for subject in range(1, SUBJECTS + 1):
        with (folder / f"subject-{subject}.bin").open("wb") as stream:
            stream.write(HEADER.format(subject=subject, pages=each // PAGE).replace("\n", "\r\n").encode())
            number = 0
            for block in counts(each, subject):
                number = _write_pages(stream, block, number)
        bouts = int(each / RATE_HZ // BOUT_S)
        for bout in range(bouts):
            name = CLASSES[bout % len(CLASSES)]
            rows.append(f"{subject},{bout * BOUT_S},{(bout + 1) * BOUT_S},{name}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return ["geneactiv", str(folder), "--labels", str(folder / "labels.csv")]


def _write_pages(stream: object, block: np.ndarray, number: int) -> int:
    fields = np.concatenate([block.astype(np.int64) & 0xFFF, np.zeros((len(block), 1), np.int64)], axis=1)
    words = (fields * np.array([1 << 36, 1 << 24, 1 << 12, 1])).sum(axis=1)
    text = np.char.mod("%012X", words)
    begin = np.datetime64("2026-03-01T00:00:00.000")
    for at in range(0, len(text), PAGE):
        stamp = str(begin + np.timedelta64(int(number * PAGE * 1000 / RATE_HZ), "ms"))
        head = (
            f"Recorded Data\r\nDevice Unique Serial Code:000001\r\nSequence Number:{number}\r\n"
            f"Page Time:{stamp.replace('T', ' ').replace('.', ':')}\r\nUnassigned:\r\nTemperature:25.0\r\n"
            f"Battery voltage:4.0\r\nDevice Status:Recording\r\nMeasurement Frequency:100.0\r\n"
        )
        stream.write((head + "".join(text[at : at + PAGE]) + "\r\n").encode())  # type: ignore[attr-defined]
        number += 1
    return number


def write_npz(folder: Path, samples: int) -> list[str]:
    """One neutral file of integer counts."""
    folder.mkdir()
    each = samples // SUBJECTS
    bout = int(BOUT_S * RATE_HZ)
    whole = np.concatenate([np.concatenate(list(counts(each, s))) for s in range(1, SUBJECTS + 1)]).T
    rows = [
        [s + 1, b % len(CLASSES), s * each + b * bout, s * each + (b + 1) * bout]
        for s in range(SUBJECTS)
        for b in range(each // bout)
    ]
    np.savez(
        folder / "set.npz",
        counts=np.ascontiguousarray(whole),
        scale=np.full(3, 1 / 256),
        offset=np.zeros(3),
        fs=np.float64(RATE_HZ),
        channels=np.array(["acc_x", "acc_y", "acc_z"]),
        units=np.array(["g"] * 3),
        recordings=np.array(rows, dtype=np.int32),
        recording_columns=np.array(["subject", "class", "start", "stop"]),
        class_names=np.array(CLASSES),
    )
    return ["npz", str(folder / "set.npz")]


MAKERS = {"geneactiv": write_geneactiv, "npz": write_npz}


def imported(arguments: list[str], out: Path) -> tuple[float, int]:
    """Import in a process of its own; returns seconds and the peak of its resident memory in bytes."""
    code = (
        "import sys; from topokd_edge.cli import main\n"
        "try: main()\n"
        "finally: print(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "data", "import", *arguments, "--out", str(out), "--seconds", "5"]
    began = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stderr)
    # Not getrusage: its peak begins with the memory of this process, which started the other.
    peak = next(line for line in done.stderr.splitlines() if line.startswith("VmHWM"))
    return seconds, int(peak.split()[1]) * 1024


def copied(read: list[Path], write: list[Path], scratch: Path) -> float:
    """Seconds to read all of `read`, and to write as many bytes as `write` has, flushed to the disk."""
    block = 1 << 22
    began = time.perf_counter()
    for path in read:
        with path.open("rb", buffering=0) as stream:
            while stream.read(block):
                pass
    zeros = os.urandom(block)
    with scratch.open("wb", buffering=0) as stream:
        for _ in range(sum(path.stat().st_size for path in write) // block):
            stream.write(zeros)
        os.fsync(stream.fileno())
    seconds = time.perf_counter() - began
    scratch.unlink()
    return seconds


def measure(name: str, samples: int, folder: Path) -> dict[str, object]:
    arguments = MAKERS[name](folder / "data", samples)
    read = sorted(path for path in (folder / "data").iterdir() if path.is_file())
    seconds, peak = imported(arguments, folder / "w")
    write = sorted(path for path in (folder / "w").iterdir() if path.is_file())
    copy = copied(read, write, folder / "copy")
    windows = WindowSet.open(folder / "w")
    return {
        "format": name,
        "samples": int(windows.made["dropped"]["samples"]),
        "windows": len(windows),
        "read_mb": round(sum(path.stat().st_size for path in read) / 1e6),
        "written_mb": round(sum(path.stat().st_size for path in write) / 1e6),
        "seconds": round(seconds, 1),
        "samples_per_s": round(len(windows.recordings.samples) / seconds),
        "peak_mb": round(peak / 1e6),
        "copy_seconds": round(copy, 1),
        "share_of_disk_speed": round(copy / seconds, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=50_000_000)
    parser.add_argument("--formats", default="geneactiv,npz")
    parser.add_argument("--scratch", type=Path, default=None, help="A folder on the disk to measure.")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    rows = []
    for name in options.formats.split(","):
        folder = Path(tempfile.mkdtemp(dir=options.scratch))
        try:
            rows.append(measure(name, options.samples, folder))
        finally:
            shutil.rmtree(folder)
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()))
    if options.out is not None:
        options.out.write_text(json.dumps({"command": " ".join(sys.argv), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
