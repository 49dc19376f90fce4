"""An Android device behind adb: which one, commands on it, and a folder of its own that does not stay."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from topokd_bench.ssh import VanishedError, clean
from topokd_edge.bundle import DeviceError, MissingError

TARGET = "adb"
ROOT = "/data/local/tmp"
"""The one place where the shell user of every Android may write and run programs."""
MACHINES = {
    "arm64-v8a": "aarch64",
    "armeabi-v7a": "armv7l",
    "armeabi": "armv6l",
    "x86_64": "x86_64",
    "riscv64": "riscv64",
}
"""Android's names of ABIs (developer.android.com/ndk/guides/abis) and those of `uname -m`."""
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_NAME = re.compile(r"[a-z]{1,16}")
_STATUS = re.compile(r"(?:^|\n)status=(\d{1,3})\s*$")
_PROPERTY = re.compile(r"^\[([A-Za-z0-9_.-]+)\]: \[(.*)\]$", re.MULTILINE)
_REMEDIES = {
    "unauthorized": "unlock the device and allow USB debugging from this computer",
    "offline": "unplug and plug in again, or: adb reconnect",
    "no permissions": "this user may not use the USB port: apt install android-sdk-platform-tools-common, "
    "then plug in again",
}
_NO_DEVICE = (
    "plug the device in with a cable that carries data, turn on developer options and USB debugging, "
    "and see: adb devices"
)


def parse_target(text: str) -> str | None:
    """Return the serial of `adb` (None: the only device there is) or `adb:SERIAL`.

    Raises
    ------
    ValueError
        When it is anything else.
    """
    if text == TARGET:
        return None
    serial = text.removeprefix(f"{TARGET}:")
    if serial == text or not _SERIAL.fullmatch(serial):
        raise ValueError(f"{text!r}: expected adb or adb:SERIAL, as `adb devices` names it")
    return serial


class Phone:
    """A device, for as long as the `with` block lasts; afterwards nothing of it is left there.

    Parameters
    ----------
    target
        As `--on` named it.

    Attributes
    ----------
    serial
        Which device it is.
    properties
        What `getprop` says, with control characters taken out.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.serial = ""
        self.properties: dict[str, str] = {}
        self._folder = f"{ROOT}/topokd-bench-{secrets.token_hex(8)}"

    def __enter__(self) -> Phone:
        """Find the device, and make a folder there.

        Raises
        ------
        MissingError
            When this machine has no adb.
        DeviceError
            When there is no such device, several to choose from, or one that does not let us in.
        """
        if shutil.which("adb") is None:
            raise MissingError(
                "--on adb needs Android's adb", hint="apt install adb, or Android's SDK platform tools"
            )
        self.serial = self._choose(parse_target(self.target))
        said, _ = self._shell("getprop")
        self.properties = {name: clean(value) for name, value in _PROPERTY.findall(said)}
        said, status = self._shell(f"umask 077 && mkdir {self._folder}")
        if status:
            raise DeviceError(f"{self.target}: no folder in {ROOT} ({_last(said)})", hint="make room there")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still runs there, and remove the folder."""
        ours = f'[ "$(readlink $p/exe)" = {self._folder}/student ]'
        stop = f"for p in /proc/[0-9]*; do {ours} && kill -9 ${{p##*/}}; done 2>/dev/null"
        with contextlib.suppress(DeviceError):
            self._shell(f"{stop}; rm -rf {self._folder}", seconds=20.0)

    def put(self, name: str, content: bytes) -> None:
        """Store a file in the folder.

        Raises
        ------
        DeviceError
            When it does not fit, or the device is gone.
        """
        assert _NAME.fullmatch(name)
        with tempfile.TemporaryDirectory(prefix="topokd-adb-") as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            child = self._adb("push", str(path), f"{self._folder}/{name}", seconds=600.0)
        if child.returncode:
            said = _last(f"{child.stdout}\n{child.stderr}")
            if not self._is_there():
                raise self._vanished(said)
            raise DeviceError(
                f"{self.target}: the device cannot take the files: {said}",
                hint="make room on the device, or try fewer held-out windows with --windows",
            )

    def run(self, words: str, data: str = "", *, seconds: float) -> tuple[list[str], int]:
        """Run a constant command in the folder, on a stored file as its input.

        Parameters
        ----------
        words
            Never anything a user or a device said.
        data
            Name of the stored file; empty for none.
        seconds
            It may take.

        Returns
        -------
        tuple
            The lines, and the exit status; 128 and more is a signal.

        Raises
        ------
        DeviceError
            When the device is gone, or does not end in time.
        """
        assert not data or _NAME.fullmatch(data)
        said, status = self._shell(f"cd {self._folder} && {words} < {data or '/dev/null'}", seconds=seconds)
        return said.splitlines(), status

    def _shell(self, script: str, *, seconds: float = 60.0) -> tuple[str, int]:
        """Run a script there; its status is a line of its own, since old adb does not carry it."""
        child = self._adb("shell", f'{script}; echo "\nstatus=$?"', seconds=seconds)
        said = child.stdout.replace("\r", "")
        found = _STATUS.search(said)
        if found is None:
            raise self._vanished(_last(child.stderr or said))
        return said[: found.start()], int(found[1])

    def _adb(self, *words: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        chosen = ["-s", self.serial] if self.serial else []
        try:
            return subprocess.run(
                ["adb", *chosen, *words],  # noqa: S607
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=seconds,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{self.target}: no answer within {seconds:g} s") from None

    def _devices(self) -> dict[str, str]:
        """Return the state of every device by its serial."""
        said = self._adb("devices").stdout.splitlines()
        pairs = [line.partition("\t") for line in said if "\t" in line]
        return {clean(serial.strip()): clean(state.strip()) for serial, _, state in pairs}

    def _is_there(self) -> bool:
        return self._devices().get(self.serial) == "device"

    def _choose(self, asked: str | None) -> str:
        found = self._devices()
        if not found or (asked is not None and asked not in found):
            there = f"; there are {', '.join(found)}" if found else ""
            raise DeviceError(f"{self.target}: adb sees no such device{there}", hint=_NO_DEVICE)
        if asked is None and len(found) > 1:
            raise DeviceError(
                f"{self.target}: adb sees {len(found)} devices",
                problems=[f"{serial}: {state}" for serial, state in found.items()],
                hint=f"name one: --on adb:{next(iter(found))}",
            )
        serial = asked or next(iter(found))
        if found[serial] != "device" or not _SERIAL.fullmatch(serial):
            why = next((words for state, words in _REMEDIES.items() if found[serial].startswith(state)), "")
            raise DeviceError(
                f"{self.target}: the device {serial} is {found[serial]}",
                hint=why or "let it start up, and see: adb devices",
            )
        return serial

    def _vanished(self, said: str) -> DeviceError:
        return VanishedError(f"{self.target}: the device vanished while it was measured ({said})")


def _last(said: str) -> str:
    """Return the last line that is called an error, since figures may follow it; else the last."""
    lines = [line.strip() for line in clean(said).splitlines() if line.strip()]
    errors = [line for line in lines if "error: " in line]
    return (errors or lines or ["it said nothing"])[-1]
