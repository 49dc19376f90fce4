"""The folder of a bundle: its checked manifest, its hashes, its self-test vectors.

Light on purpose (standard library and numpy).
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.arrays import load_npz
from topokd_edge.errors import BadInputError, CheckFailedError
from topokd_edge.files import read_json, sha256_file, write_text
from topokd_edge.manifest import MANIFEST, Manifest
from topokd_edge.streaming import WindowStream

SUMS = "SHA256SUMS"
"""Hashes of every other file, as `sha256sum -c` reads them; the manifest's own hash is here."""

RATE_TOLERANCE = 0.005
"""Clocks of sensors differ by less, other settings by more; an importer believes a stated rate as far."""

_MOST_JSON = 1 << 20
_MOST_VECTORS = 64 << 20
"""Bytes of a manifest or list of hashes, and of unpacked self-test vectors; sound ones have a hundredth."""
_SUM_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


@dataclass(frozen=True)
class Bundle:
    """A bundle folder and its checked manifest."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Open a bundle; the hashes are checked by `check_hashes`.

        Raises
        ------
        BadInputError
            When the folder has no usable manifest or a named file is missing.
        """
        if not path.is_dir():
            raise BadInputError(f"{path}: not a bundle folder", hint="make one with: topokd-edge export")
        _refuse_large(path / MANIFEST)
        manifest = Manifest.from_json(read_json(path / MANIFEST), str(path / MANIFEST))
        bundle = cls(path, manifest)
        named = [item.path for item in manifest.files] + [manifest.self_test]
        there = [name for name in named if (path / name).is_file()]
        problems = [f"{name} is named and is not there" for name in named if name not in there]
        root = path.resolve()
        problems += [f"{name} leads outside" for name in there if root not in (path / name).resolve().parents]
        problems += [
            f"{item.path} has {(path / item.path).stat().st_size} bytes, {MANIFEST} says {item.bytes}"
            for item in manifest.files
            if item.path in there and (path / item.path).stat().st_size != item.bytes
        ]
        if problems:
            raise BadInputError(f"{path}: incomplete bundle", problems=problems, hint="export it again")
        return bundle

    def model_path(self, target: str, precision: str) -> Path:
        """Return the path of a model file.

        Raises
        ------
        BadInputError
            When the bundle has no such file.
        """
        for item in self.manifest.files:
            if (item.target, item.precision) == (target, precision):
                return self.folder / item.path
        have = ", ".join(f"{item.target} {item.precision}" for item in self.manifest.files)
        raise BadInputError(f"{self.folder}: no {target} {precision} model in this bundle, it has {have}")

    def self_test(self) -> dict[str, npt.NDArray[np.float32]]:
        """Read the self-test vectors.

        Returns
        -------
        dict
            `x`: float32 (vectors, channels, length), normalised; and by the path of each model file the
            expected logits, float32 (vectors, classes); int8 ones are those of the reference kernels.

        Raises
        ------
        BadInputError
            When the file is damaged or does not fit the manifest.
        """
        path = self.folder / self.manifest.self_test
        _refuse_bomb(path)
        vectors = load_npz(path, hint="export the bundle again")
        shape = (self.manifest.channels, self.manifest.length)
        x = vectors.get("x", np.empty(0))
        if x.dtype != np.float32 or x.ndim != 3 or x.shape[1:] != shape or not len(x):
            raise BadInputError(f"{path}: expected an array x of float32 windows of shape {shape}")
        expected = (len(vectors["x"]), len(self.manifest.class_names))
        wrong = [f.path for f in self.manifest.files if getattr(vectors.get(f.path), "shape", 0) != expected]
        if wrong:
            raise BadInputError(f"{path}: no expected logits of shape {expected} for {', '.join(wrong)}")
        return vectors

    def stream(self, overlap: float = 0.5) -> WindowStream:
        """Return the object that an app feeds with samples; its windows go into the model as they are.

        Parameters
        ----------
        overlap
            Share of a window that the next one repeats; with 0.5 there is an answer every half window.
        """
        manifest = self.manifest
        return WindowStream(manifest.channels, manifest.length, overlap, manifest.normalisation)

    def check_feed(
        self,
        *,
        channels: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        rate_hz: float | None = None,
    ) -> None:
        """Compare what is about to be fed with what the student was trained on; None is not compared.

        Raises
        ------
        BadInputError
            With everything that differs: names or order of the channels, their units, a rate more than 0.5 %
            off.
        """
        manifest, problems = self.manifest, []
        for name, got, expected in (
            ("channels", channels, manifest.channel_names),
            ("units", units, manifest.units),
        ):
            if got is not None and tuple(got) != expected:
                problems.append(f"{name} {', '.join(got)}; expected, in this order, {', '.join(expected)}")
        if rate_hz is not None and not same_rate(rate_hz, manifest.rate_hz):
            problems.append(f"{rate_hz:g} Hz; expected {manifest.rate_hz:g} Hz")
        if problems:
            raise BadInputError(
                f"{self.folder}: the samples are not what this student was trained on",
                problems=problems,
                hint="reorder, convert or resample them before they are pushed",
            )

    def check_hashes(self) -> None:
        """Compare every file with `SHA256SUMS`, and the model files with the manifest.

        Raises
        ------
        CheckFailedError
            With every file that is changed, missing or unknown.
        """
        sums = read_sums(self.folder / SUMS)
        present = {
            path.relative_to(self.folder).as_posix(): path
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".") and path != self.folder / SUMS
        }
        problems = [f"{name}: listed in {SUMS} and not there" for name in sums if name not in present]
        problems += [f"{name}: not listed in {SUMS}" for name in present if name not in sums]
        actual = {name: sha256_file(path) for name, path in present.items()}
        problems += [
            f"{name}: content changed" for name in present if name in sums and sums[name] != actual[name]
        ]
        for item in self.manifest.files:
            if actual.get(item.path) != item.sha256:
                problems.append(f"{item.path}: not the file that {MANIFEST} describes")
        if problems:
            raise CheckFailedError(
                f"{self.folder}: the bundle is not as it was exported",
                problems=problems,
                hint="export it again, or copy it again",
            )

    @property
    def digest(self) -> str:
        """SHA-256 of `SHA256SUMS`: names the bundle's whole content."""
        return hashlib.sha256((self.folder / SUMS).read_bytes()).hexdigest()


def _refuse_large(path: Path) -> None:
    if path.is_file() and path.stat().st_size > _MOST_JSON:
        raise BadInputError(f"{path}: {path.stat().st_size} bytes, expected at most {_MOST_JSON}")


def _refuse_bomb(path: Path) -> None:
    """Refuse an archive that would unpack to more than self-test vectors can be."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(item.file_size for item in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BadInputError(f"{path}: damaged self-test vectors ({error})") from None
    if unpacked > _MOST_VECTORS:
        raise BadInputError(f"{path}: unpacks to {unpacked} bytes, expected at most {_MOST_VECTORS}")


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS` over every other file of a bundle; the last step of writing one."""
    files = [path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS]
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    write_text(folder / SUMS, "".join(f"{sha256_file(folder / name)}  {name}\n" for name in names))


def read_sums(path: Path) -> dict[str, str]:
    """Read a `sha256sum` file: {relative path: hash}.

    Raises
    ------
    CheckFailedError
        When it is missing or a line is not a hash, two spaces and a path.
    """
    _refuse_large(path)
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckFailedError(f"{path}: cannot be read ({error})", hint="export the bundle again") from None
    lines = text.split("\n")
    matches = [_SUM_LINE.fullmatch(line) for line in lines[:-1]]
    if lines[-1] or not matches or not all(matches):
        raise CheckFailedError(f"{path}: damaged", hint="export the bundle again")
    return {match[2]: match[1] for match in matches if match}


def same_rate(rate_hz: float, expected_hz: float) -> bool:
    """Tell whether a rate is that of a student, within what the clocks of sensors differ."""
    return bool(np.isfinite(rate_hz)) and abs(rate_hz / expected_hz - 1) <= RATE_TOLERANCE
