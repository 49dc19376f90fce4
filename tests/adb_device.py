"""A stand-in for `adb` and the device behind it: a folder of this machine, whose programs really run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = "/data/local/tmp"
PROPERTIES = {
    "ro.product.cpu.abi": "x86_64",
    "ro.product.model": "Pixel \x1b[2J7",
    "ro.product.manufacturer": "Google",
    "ro.soc.model": "GS201",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
}
BATTERY = "Current Battery Service state:\n  AC powered: false\n  USB powered: true\n  temperature: 287\n"
THERMAL = "IsStatusOverride: false\nThermal Status: 0\n"


class AdbDevice:
    """Puts `adb` into `bin`; what it answers is in `settings`, what it stored in `root`.

    Settings: `devices` (serial to state), `properties`, `vanish` (a word of a command at which the device is
    gone), `full` (a file name that no longer fits), `emulator` (a command the student is run by), `dumpsys`.
    """

    def __init__(self, folder: Path) -> None:
        self.bin, self.root, self._settings = folder / "bin", folder / "root", folder / "settings.json"
        for path in (self.bin, self.root):
            path.mkdir(parents=True)
        self.settings: dict[str, Any] = {
            "devices": {"emulator-5554": "device"},
            "properties": PROPERTIES,
            "vanish": "",
            "full": "",
            "emulator": [],
            "battery": BATTERY,
            "thermal": THERMAL,
        }
        for name, lines in {
            "adb": [f'exec {sys.executable} {__file__} {folder} "$@"'],
            "dumpsys": [f'exec cat "{folder}/$1"'],
        }.items():
            (self.bin / name).write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
            (self.bin / name).chmod(0o755)
        self.set()

    def set(self, **changes: Any) -> None:
        self.settings |= changes
        self._settings.write_text(json.dumps(self.settings))
        for name in ("battery", "thermal"):
            path = self._settings.parent / (name if name == "battery" else "thermalservice")
            path.write_text(self.settings[name])

    def leftovers(self) -> list[str]:
        return [path.name for path in self.root.iterdir()]

    def commands(self) -> list[list[str]]:
        """Return every command line that adb was given."""
        log = self._settings.parent / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def main(folder: Path, words: list[str]) -> int:
    settings = json.loads((folder / "settings.json").read_text())
    with (folder / "log").open("a") as log:
        log.write(json.dumps(words) + "\n")
    devices, chosen = settings["devices"], None
    if words[0] == "-s":
        chosen, words = words[1], words[2:]
    gone = folder / "gone"
    if settings["vanish"] and any(settings["vanish"] in word for word in words):
        gone.touch()
    if words == ["devices"]:
        there = {} if gone.exists() else devices
        listed = "".join(f"{serial}\t{state}\n" for serial, state in there.items())
        sys.stdout.write("* daemon not running; starting now at tcp:5037\n* daemon started successfully\n")
        sys.stdout.write(f"List of devices attached\n{listed}\n")
        return 0
    if gone.exists() or devices.get(chosen) != "device":
        sys.stderr.write(f"error: device '{chosen}' not found\n")
        return 1
    if words[0] == "push":
        return push(folder, settings, words[1], words[2])
    assert words[0] == "shell" and len(words) == 2
    return shell(folder, settings, words[1])


def push(folder: Path, settings: dict[str, Any], source: str, target: str) -> int:
    path = Path(target.replace(ROOT, str(folder / "root")))
    if settings["full"] and path.name == settings["full"]:
        said = f"failed to copy '{source}' to '{target}': remote couldn't write file: No space left on device"
        sys.stderr.write(f"adb: error: {said}\n{source}: 0.5 MB/s (24000 bytes in 0.048s)\n")
        return 1
    path.write_bytes(Path(source).read_bytes())
    path.chmod(0o644)
    return 0


def shell(folder: Path, settings: dict[str, Any], script: str) -> int:
    """Run a script as a device without shell_v2 does: one stream, lines ended as by a terminal, no status."""
    output, _ = run_script(folder, settings, script)
    sys.stdout.buffer.write(output.replace(b"\n", b"\r\n"))
    return 0


def run_script(folder: Path, settings: dict[str, Any], script: str) -> tuple[bytes, int]:
    """Run a script of the device here; return what it said, and its status."""
    if script.startswith("getprop;"):
        lines = "\n".join(f"[{name}]: [{value}]" for name, value in settings["properties"].items())
        script = f"printf '%s\\n' '{lines}'" + script.removeprefix("getprop")
    local = script.replace(ROOT, str(folder / "root"))
    if settings["emulator"]:
        local = local.replace("./student", " ".join([*settings["emulator"], "./student"]))
    child = subprocess.run(
        ["sh", "-c", local],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": f"{folder / 'bin'}:/usr/bin:/bin"},
        check=False,
    )
    return child.stdout, child.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
