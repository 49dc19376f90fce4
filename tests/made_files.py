"""A small valid file of every format, and what must be read from it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import made_actfast as actfast
import made_geneactiv as gene
import numpy as np
import numpy.typing as npt

from topokd_edge.data.importers import (
    _table_csv,
    _table_parquet,
    actfast_process,
    geneactiv,
    geneactiv_csv,
    npz,
    pamap2,
    published,
    shoulder_watch,
    uea_ts,
    wfdb_records,
)
from topokd_edge.data.importers._number_rows import number_rows

RATE_HZ = 85.7
GAP_S = 10.0
G = 9.80665
"""m/s2."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Made:
    """A file or folder, and the truth about the first recording in it.

    `files` are those that can be damaged, the first the one that errors name; `flags` what the user has to
    say; `label_rows` that the labels come from a file of their own; `norm_g` the least and greatest median
    norm of each accelerometer, None where there is none to be told by its channels.
    """

    path: Path
    files: tuple[Path, ...]
    channels: tuple[str, ...]
    units: tuple[str, ...]
    rate_hz: float
    samples: Values
    subject: str
    session: str
    labels: tuple[tuple[int, int, str], ...]
    time: Values | None = None
    gaps: tuple[tuple[int, float], ...] = ()
    start: str | None = None
    flags: dict[str, Any] = field(default_factory=dict)
    label_rows: bool = False
    norm_g: tuple[float, float] | None = (0.98, 1.03)
    atol: float = 1e-6


@dataclass(frozen=True)
class Format:
    """How the files of a format are made.

    `make` takes a folder and a size, 1 for a small file; `small_block` sets what is read at a time to a small
    part of that: module, constant, value; None where a file is small by its format. `grows` is empty when
    memory must not grow with the file, or says why it may.
    """

    make: Callable[[Path, int], Made]
    small_block: tuple[Any, str, Any] | None = None
    grows: str = ""


def motion(n: int) -> Values:
    """Counts of 1/256 g of an accelerometer that hardly moves, shape (n, 3)."""
    k = np.arange(n)
    return np.stack([k % 41 - 20, k % 37 - 18, 255 + k % 3], axis=1).astype(np.float64)


def turning(n: int) -> Values:
    """Counts of a gyroscope, shape (n, 3)."""
    k = np.arange(n)
    return np.stack([k % 101 - 50, k % 89 - 44, k % 97 - 48], axis=1).astype(np.float64)


def parts(n: int, first: str = "sit", second: str = "walk") -> tuple[tuple[int, int, str], ...]:
    """The first third has one label, the second half the other."""
    return ((0, n // 3, first), (n // 2, n, second))


def names_of(labels: tuple[tuple[int, int, str], ...], n: int) -> list[str]:
    names = [""] * n
    for start, stop, name in labels:
        names[start:stop] = [name] * (stop - start)
    return names


def with_gap(time: Values, at: int, seconds: float = GAP_S) -> Values:
    return time + seconds * (np.arange(len(time)) >= at)


def of_geneactiv(folder: Path, size: int) -> Made:
    pages, page_s = 4 * size, 3.5
    n, lost = 300 * pages, 3 * size
    counts = motion(n).astype(int) - [0, 0, 10]
    k = np.arange(n)
    rows = np.column_stack([counts, k % 50, k % 2])
    starts = with_gap(np.arange(pages) * page_s, lost)
    text = gene.header(Measurement_Frequency="85.7 Hz", Number_of_Pages=str(pages))
    text += "".join(
        gene.page(
            i,
            gene.START + timedelta(seconds=float(starts[i])),
            gene.digits(rows[300 * i : 300 * (i + 1)].tolist()),
            rate="85.7",
        )
        for i in range(pages)
    )
    path = folder / "made.bin"
    path.write_text(text, newline="")
    gain, offset = np.array([25211, 25165, 24925]), np.array([-33, -983, -354])
    acc = (counts * 100 - offset) / gain
    return Made(
        path,
        (path,),
        ("acc_x", "acc_y", "acc_z", "light", "button", "temperature"),
        ("g", "g", "g", "lux", "1", "degC"),
        RATE_HZ,
        np.column_stack([acc, (k % 50) * 911 / 48, k % 2, np.full(n, 21.3)]),
        "P 07",
        "made",
        parts(n),
        time=(starts[:, None] + np.arange(300) * page_s / 300).ravel(),
        gaps=((300 * lost - 1, GAP_S),),
        start="2024-02-28T23:59:57.500",
        label_rows=True,
        atol=1e-4,
    )


def of_geneactiv_csv(folder: Path, size: int) -> Made:
    n, lost = 600 * size, 450 * size
    k = np.arange(n)
    time = with_gap(np.round(k / RATE_HZ, 3), lost)
    values = np.column_stack([motion(n) / 256, k % 50, k % 2, 20.5 + k % 10]).round(4)
    lines = [
        f"{gene.stamp(gene.START + timedelta(seconds=at))},"
        "{:.4f},{:.4f},{:.4f},{:.0f},{:.0f},{:.1f}".format(*row)
        for at, row in zip(time.tolist(), values.tolist(), strict=True)
    ]
    path = folder / "made.csv"
    head = gene.csv_text(0, Measurement_Frequency="85.7 Hz")
    path.write_text(head + "\r\n".join([*lines, ""]), newline="")
    return Made(
        path,
        (path,),
        ("acc_x", "acc_y", "acc_z", "light", "button", "temperature"),
        ("g", "g", "g", "lux", "1", "degC"),
        RATE_HZ,
        values,
        "S1",
        "made",
        parts(n),
        time=time,
        gaps=((lost - 1, GAP_S),),
        start="2024-02-28T23:59:57.500",
        label_rows=True,
    )


def of_axivity(folder: Path, size: int) -> Made:
    sectors, lost = 12 * size, 9 * size
    n = 40 * sectors
    acc, gyro = 8 * motion(n), turning(n)
    counts = np.column_stack([gyro, acc]).astype(int)
    starts = with_gap(np.arange(sectors) * 3.2, lost)
    path = actfast.cwa(
        folder / "made.cwa",
        [
            actfast.sector(
                i, actfast.START + float(at), counts[40 * i : 40 * (i + 1)], rate_hz=12.5, gyro=True
            )
            for i, at in enumerate(starts)
        ],
    )
    return Made(
        path,
        (path,),
        ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"),
        ("g", "g", "g", "deg/s", "deg/s", "deg/s"),
        12.5,
        np.column_stack([acc / 2048, gyro * 250 / 32768]),
        "P07",
        "made",
        parts(n),
        time=(starts[:, None] + np.arange(40) / 12.5).ravel(),
        gaps=((40 * lost - 1, GAP_S),),
        start="2020-09-13T12:26:40.000000",
        label_rows=True,
    )


def of_actigraph(folder: Path, size: int) -> Made:
    seconds, lost = 24 * size, 18 * size
    n = 30 * seconds
    counts = motion(n)
    starts = with_gap(np.arange(seconds, dtype=np.float64), lost)
    log = [
        actfast.activity(actfast.START + int(at), counts[30 * i : 30 * (i + 1)].astype(int))
        for i, at in enumerate(starts)
    ]
    path = actfast.gt3x(folder / "made.gt3x", [actfast.parameters(), *log])
    return Made(
        path,
        (path,),
        ("acc_x", "acc_y", "acc_z"),
        ("g", "g", "g"),
        30.0,
        counts / 256,
        "P07",
        "made",
        parts(n),
        time=(starts[:, None] + np.arange(30) / 30).ravel(),
        gaps=((30 * lost - 1, GAP_S),),
        start="2020-09-13T12:26:40",
        label_rows=True,
    )


def pamap2_rows(n: int, lost: int) -> Values:
    rows = np.round(np.random.default_rng(0).normal(0, 3, (n, 54)), 5)
    for imu in (3, 20, 37):
        for at in (1, 4):
            rows[:, imu + at : imu + at + 3] = np.round(motion(n) * G / 256, 5)
    rows[:, 0] = with_gap(np.round(8.38 + np.arange(n) / 100, 2), lost)
    rows[:, 1] = [
        {"": 0, "sitting": 2, "walking": 4}[name] for name in names_of(parts(n, "sitting", "walking"), n)
    ]
    rows[:, 2] = np.where(np.arange(n) % 11 == 3, 90 + np.arange(n) % 40, np.nan)
    return rows


def of_pamap2(folder: Path, size: int) -> Made:
    n, lost = 600 * size, 450 * size
    rows = pamap2_rows(n, lost)
    path = folder / "Protocol" / "subject101.dat"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, rows, fmt="%.9g")
    kept = [2, *(3 + 17 * imu + item for imu in range(3) for item in range(13))]
    units = ["degC", *["m/s2"] * 6, *["rad/s"] * 3, *["uT"] * 3]
    inside = ["temperature", *(f"{kind}_{axis}" for kind in ("acc", "acc6", "gyro", "mag") for axis in "xyz")]
    return Made(
        path,
        (path,),
        ("heart_rate", *(f"{place}_{name}" for place in ("hand", "chest", "ankle") for name in inside)),
        ("bpm", *units * 3),
        100.0,
        rows[:, kept],
        "101",
        "protocol",
        parts(n, "sitting", "walking"),
        time=rows[:, 0],
        gaps=((lost - 1, GAP_S),),
        atol=1e-5,
    )


def of_published(folder: Path, size: int) -> Made:
    made = of_pamap2(folder, size)
    names = np.array(names_of(made.labels, len(made.samples)))
    values = made.samples[names != ""]
    beats = values[:, 0]
    values[:, 0] = beats[np.maximum.accumulate(np.where(np.isnan(beats), 0, np.arange(len(beats))))]
    values = (np.nan_to_num(values) - published.MINIMA) / np.subtract(published.MAXIMA, published.MINIMA)
    values = np.where(values > 1, 0.99, np.maximum(values, 0))[::3][22:-1]
    kept = names[names != ""][::3][22:-1].tolist()
    first = kept.count("sitting")
    return replace(
        made,
        units=("1",) * 40,
        rate_hz=100 / 3,
        samples=values,
        labels=((0, first, "sitting"), (first, len(kept), "walking")),
        time=None,
        gaps=(),
        norm_g=None,
    )


def of_dsads(folder: Path, size: int) -> Made:
    files = 4 * size
    n = 125 * files
    random = np.random.default_rng(0).normal(0, 1, (n, 5, 6))
    acc = np.repeat(motion(n)[:, None] * G / 256, 5, axis=1)
    rows = np.concatenate([acc, random], axis=2).reshape(n, 45).round(4)
    paths = [folder / "data" / "a05" / "p3" / f"s{i + 1:02}.txt" for i in range(files)]
    other = folder / "data" / "a19" / "p3" / "s01.txt"
    for i, path in enumerate([*paths, other]):
        path.parent.mkdir(parents=True, exist_ok=True)
        at = 125 * (i % files)
        np.savetxt(path, rows[at : at + 125], fmt="%.6g", delimiter=",")
    places = ("torso", "right_arm", "left_arm", "right_leg", "left_leg")
    return Made(
        folder / "data",
        tuple(paths),
        tuple(
            f"{place}_{kind}_{axis}" for place in places for kind in ("acc", "gyro", "mag") for axis in "xyz"
        ),
        ("m/s2",) * 3 + ("rad/s",) * 3 + ("1",) * 3 + (("m/s2",) * 3 + ("rad/s",) * 3 + ("1",) * 3) * 4,
        25.0,
        rows,
        "3",
        "1",
        ((0, n, "ascending_stairs"),),
        gaps=tuple((125 * i - 1, 0.0) for i in range(1, files)),
    )


def of_usc_had(folder: Path, size: int) -> Made:
    import scipy.io

    n = 600 * size
    values = np.column_stack([motion(n) / 256, turning(n)])
    path = folder / "Subject3" / "a6t2.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"subject": "3", "activity_number": "6", "sensor_location": "front-right-hip"}
    scipy.io.savemat(path, {**said, "sensor_readings": values}, do_compression=True)
    return Made(
        path,
        (path,),
        ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"),
        ("g", "g", "g", "deg/s", "deg/s", "deg/s"),
        100.0,
        values,
        "3",
        "trial-2",
        ((0, n, "running_forward"),),
    )


def of_uea(folder: Path, size: int) -> Made:
    n = 1500
    values = motion(n) / 256
    case = ":".join(",".join(f"{value:.6f}" for value in column) for column in values.T)
    head = (
        "@problemName Made\n@timeStamps false\n@missing false\n@univariate false\n@dimensions 3\n"
        f"@equalLength true\n@seriesLength {n}\n@classLabel true walk run\n@data\n"
    )
    path = folder / "made_TRAIN.ts"
    path.write_text(head + "".join(f"{case}:{('walk', 'run')[i % 2]}\n" for i in range(3 * size)))
    return Made(
        path,
        (path,),
        ("dim_1", "dim_2", "dim_3"),
        ("g", "g", "g"),
        RATE_HZ,
        values,
        "unknown",
        "made_TRAIN.ts",
        ((0, n, "walk"),),
        flags={"rate_hz": RATE_HZ, "units": "g"},
        norm_g=None,
    )


def of_wfdb(folder: Path, size: int) -> Made:
    import wfdb

    n = 600 * size
    counts = turning(n)[:, :2].astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package uses what pandas warns of
        wfdb.wrsamp(
            "made",
            fs=RATE_HZ,
            units=["mV", "uV"],
            sig_name=["II", "V1"],
            d_signal=counts,
            fmt=["16", "16"],
            adc_gain=[200.0, 2.0],
            baseline=[10, 0],
            comments=["Subject: P07"],
            write_dir=str(folder),
        )
        wfdb.wrann(
            "made", "atr", np.array([0, n // 2]), symbol=["+", "+"], aux_note=["(sit", "(walk"],
            write_dir=str(folder),
        )  # fmt: skip
    path = folder / "made.hea"
    return Made(
        path,
        (folder / "made.dat", path, folder / "made.atr"),
        ("II", "V1"),
        ("mV", "mV"),
        RATE_HZ,
        np.column_stack([(counts[:, 0] - 10) / 200, counts[:, 1] / 2000]),
        "P07",
        "made",
        ((0, n // 2, "sit"), (n // 2, n, "walk")),
        flags={"label": "rhythm"},
        norm_g=None,
    )


def table_columns(n: int, lost: int) -> dict[str, Any]:
    acc = np.round(motion(n) / 0.256, 3)
    return {
        "t [s]": np.round(1_700_000_000 + with_gap(np.arange(n) / RATE_HZ, lost), 5),
        "acc_x [mg]": acc[:, 0],
        "acc_y [mg]": acc[:, 1],
        "acc_z [mg]": acc[:, 2],
        "gyro_x [deg/s]": turning(n)[:, 0],
        "act": names_of(parts(n), n),
        "who": ["P07"] * n,
    }


def of_table(path: Path, size: int) -> Made:
    n, lost = 600 * size, 450 * size
    columns = table_columns(n, lost)
    if path.suffix == ".csv":
        rows = zip(*columns.values(), strict=True)
        lines = [",".join(columns), *(f"{t:.5f},{','.join(map(str, row))}" for t, *row in rows), ""]
        path.write_text("\n".join(lines))
    else:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table(columns), path, row_group_size=200)
    acc = np.column_stack([columns[f"acc_{axis} [mg]"] for axis in "xyz"]) * 1e-3
    return Made(
        path,
        (path,),
        ("acc_x", "acc_y", "acc_z", "gyro_x"),
        ("g", "g", "g", "deg/s"),
        RATE_HZ,
        np.column_stack([acc, columns["gyro_x [deg/s]"]]),
        "P07",
        "1",
        parts(n),
        time=columns["t [s]"] - 1_700_000_000,
        gaps=((lost - 1, GAP_S),),
        start="2023-11-14T22:13:20+00:00",
        flags={"label": "act", "subject": "who", "rate_hz": RATE_HZ},
    )


def of_csv(folder: Path, size: int) -> Made:
    return of_table(folder / "made.csv", size)


def of_parquet(folder: Path, size: int) -> Made:
    return of_table(folder / "made.parquet", size)


def of_npz(folder: Path, size: int) -> Made:
    n = 600 * size
    path = folder / "made.npz"
    np.savez(
        path,
        counts=motion(n + 100).T.astype(np.int16),
        scale=np.full(3, 1000 / 256),
        offset=np.array([0.0, 0.0, 5.0]),
        fs=np.float64(RATE_HZ),
        channels=np.array(["acc_x", "acc_y", "acc_z"]),
        units=np.array(["mg", "mg", "mg"]),
        recordings=np.array([[7, 2, 0, 0, n], [7, 2, 1, n, n + 100]], dtype=np.int32),
        recording_columns=np.array(["subject", "trial", "class", "start", "stop"]),
        class_names=np.array(["sit", "walk"]),
        segment_samples=np.int32(150),
    )
    return Made(
        path,
        (path,),
        ("acc_x", "acc_y", "acc_z"),
        ("g", "g", "g"),
        RATE_HZ,
        motion(n) / 256 + [0, 0, 0.005],
        "7",
        "trial-2",
        ((0, n, "sit"),),
        gaps=tuple((at - 1, 0.0) for at in range(150, n, 150)),
    )


def of_shoulder_watch(folder: Path, size: int) -> Made:
    path = folder / "watch_dataset.npy"
    path.write_bytes(shoulder_watch.installed_file().read_bytes())
    truth = np.load(path, allow_pickle=True).item()
    n = len(truth["X"][0])
    return Made(
        path,
        (path,),
        ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"),
        ("g", "g", "g", "rad/s", "rad/s", "rad/s"),
        50.0,
        truth["X"][0],
        str(int(truth["subject"][0])),
        ("left", "right")[int(truth["side"][0])],
        ((0, n, truth["y_labels"][truth["y"][0]]),),
        norm_g=(0.8, 2.5),
    )


_ROWS = (pamap2, "number_rows", partial(number_rows, at_once=100))
_HOLDS = "the package actfast holds the whole file"

FORMATS: dict[str, Format] = {
    "shoulder-watch": Format(of_shoulder_watch, grows="one known file of 20 MB"),
    "geneactiv": Format(of_geneactiv, (geneactiv, "_CHUNK_PAGES", 1)),
    "geneactiv-csv": Format(of_geneactiv_csv, (geneactiv_csv, "_BLOCK_BYTES", 5000)),
    "axivity": Format(of_axivity, (actfast_process, "CHUNK_SAMPLES", 100), grows=_HOLDS),
    "actigraph": Format(of_actigraph, (actfast_process, "CHUNK_SAMPLES", 100), grows=_HOLDS),
    "pamap2": Format(of_pamap2, _ROWS),
    "pamap2-published": Format(of_published, _ROWS),
    "dsads": Format(of_dsads),
    "usc-had": Format(of_usc_had, grows="each file is one trial, read as a whole; of 16 MiB at most"),
    "uea": Format(of_uea, (uea_ts, "CHUNK_SAMPLES", 64)),
    "wfdb": Format(of_wfdb, (wfdb_records, "CHUNK_SAMPLES", 100)),
    "csv": Format(of_csv, (_table_csv, "BLOCK_BYTES", 5000)),
    "parquet": Format(of_parquet, (_table_parquet, "CHUNK_SAMPLES", 100)),
    "npz": Format(of_npz, (npz, "CHUNK_SAMPLES", 100)),
}
"""By name of the format."""


def label_file(made: Made) -> str:
    """The labels of a made file as rows of a label file; each begins half a sample before its first."""
    assert made.time is not None
    half = 0.5 / made.rate_hz
    first = made.time[0]
    ends = np.append(made.time, made.time[-1] + 2 * half)
    rows = [f"{ends[a] - first - half:.4f},{ends[b] - first - half:.4f},{name}" for a, b, name in made.labels]
    rows[0] = rows[0].replace(rows[0].split(",")[0], "0", 1)
    return "\n".join(["start,end,label", *rows, ""])
