"""Bench a run on all that one machine can stand in for: python benchmarks/bench_everywhere.py RUN FOLDER

This machine; an sshd of its own on loopback; a headless Chromium in place of a phone; emulated cores, and
boards modelled from them. FOLDER gets the bundle, bench.json and report.html. Needs openssh-server, chromium
and the extra `mcu`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from sshd_device import SshDevice

CORES = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "rv32imc")
BOARDS = ("nrf52840", "stm32l4r5", "stm32u575", "apollo3", "rp2040", "esp32-c3")
TARGETS = ("onnx", "tflite", "wasm")
COMMAND = (sys.executable, "-c", "import sys, topokd_edge.cli; sys.exit(topokd_edge.cli.main())")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PAGE = re.compile(r"open on the phone: (http://\S+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--windows", type=int, help="held-out windows for accuracy, at most")
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing each pipeline")
    arguments = parser.parse_args()
    bundle, answer = arguments.folder / "bundle", arguments.folder / "bench.json"
    if not bundle.is_dir():
        call("export", str(arguments.run), "--out", str(bundle), "--targets", ",".join(TARGETS))
    with tempfile.TemporaryDirectory() as work, sshd(Path(work) / "device") as device:
        names = (*CORES, *BOARDS)
        targets = ["local", device.url, "browser", *(f"mcu:{name}" for name in names)]
        options = ["--run", str(arguments.run), "--seconds", str(arguments.seconds), "--address", "127.0.0.1"]
        if arguments.windows:
            options += ["--windows", str(arguments.windows)]
        path = f"{device.client}:{os.environ['PATH']}"
        bench(
            ["bench", str(bundle), "--on", ",".join(targets), *options, "--out", str(answer), "--overwrite"],
            path,
            Path(work) / "profile",
        )
    page = arguments.folder / "report.html"
    call("report", str(arguments.run), str(bundle), str(answer), "--out", str(page), "--overwrite")


def call(*words: str) -> None:
    subprocess.run([*COMMAND, *words], check=True)


@contextmanager
def sshd(folder: Path) -> Iterator[SshDevice]:
    device = SshDevice(folder)
    try:
        yield device
        assert device.leftovers() == [], "something stayed on the device"
    finally:
        device.close()


def bench(words: list[str], path: str, profile: Path) -> None:
    """Run the command, and open its page in a browser as soon as it says where."""
    child = subprocess.Popen(
        [*COMMAND, *words], stderr=subprocess.PIPE, text=True, env={**os.environ, "PATH": path}
    )
    assert child.stderr is not None
    browser: subprocess.Popen[bytes] | None = None
    try:
        for line in child.stderr:
            sys.stderr.write(line)
            found = PAGE.search(line)
            if found and browser is None:
                browser = open_page(found[1], profile)
        if child.wait() != 0:
            sys.exit(f"the bench ended with status {child.returncode}")
    finally:
        if browser is not None:
            browser.terminate()
            browser.wait()


def open_page(address: str, profile: Path) -> subprocess.Popen[bytes]:
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        sys.exit(f"no browser: expected one of {', '.join(BROWSERS)}")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}")
    return subprocess.Popen([program, *flags, address], stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
