"""The bench over SSH on user lands of other machines: python benchmarks/userlands.py FOLDER [OUT [NAME...]]

Each is a Debian that mmdebstrap unpacks below FOLDER, with the wheels pip has for its machine, unmodified.
Its programs run under qemu-user in a mount namespace of their own, where the kernel starts them by its own
binfmt_misc (Linux 6.7 or newer); nothing of this machine is changed. An sshd on loopback has its `python3`.
What is shown is which runtime a device of this kind ends up with, and that every model answers right there.
Times are those of an emulator and say nothing of a device. OUT is a JSON file.

Needs mmdebstrap, qemu-user-static (later: qemu-user-binfmt), openssh-server, and a mirror of Debian.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from export_cases import add_teachers, make_run
from exported import table
from sshd_device import SshDevice
from topokd_export.export import export_student

from topokd_edge.files import write_json

MIRROR = "deb http://deb.debian.org/debian {suite} main"
PACKAGES = ("base-files", "python3", "libstdc++6", "libgomp1")
NUMPY = ("python3-numpy", "libatomic1")
BINFMT = Path("/usr/lib/binfmt.d")
PLATFORMS = {
    "arm64": tuple(f"manylinux_2_{minor}_aarch64" for minor in (34, 28, 27, 17)),
    "armhf": ("manylinux_2_34_armv7l",),
}
QEMU = {"arm64": "qemu-aarch64", "armhf": "qemu-arm"}
ENTER = """set -e
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
cat {binfmt} > /proc/sys/fs/binfmt_misc/register
mount --rbind /proc {root}/proc
mount --rbind /dev {root}/dev
mount --bind "$TMPDIR" {root}/tmp
export TMPDIR=/tmp PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin QEMU_CPU={cpu}
exec chroot {root} /usr/bin/python3 "$@"
"""


@dataclass(frozen=True)
class Land:
    """A user land; without `arch` it is a virtual environment of this machine.

    Attributes
    ----------
    suite, arch, packages
        Of Debian.
    cpu
        What qemu emulates: that of a device of this kind, so that newer instructions are illegal.
    wheels
        What pip installs, with all they need.
    python
        Whose wheels.
    """

    wheels: tuple[str, ...] = ()
    arch: str = ""
    suite: str = "bookworm"
    cpu: str = "max"
    packages: tuple[str, ...] = PACKAGES
    python: str = "3.11"


LANDS = {
    "64 bit, LiteRT": Land(("ai-edge-litert",), "arm64", cpu="cortex-a53"),
    "64 bit, ONNX Runtime": Land(("onnxruntime",), "arm64", cpu="cortex-a72"),
    "64 bit, both": Land(("ai-edge-litert", "onnxruntime"), "arm64", "trixie", "cortex-a76", python="3.13"),
    "64 bit, tflite-runtime": Land(("tflite-runtime==2.14.0", "numpy<2"), "arm64", cpu="cortex-a72"),
    "32 bit, tflite-runtime": Land(
        ("tflite-runtime==2.14.0",), "armhf", cpu="cortex-a7", packages=(*PACKAGES, *NUMPY)
    ),
    "32 bit, nothing": Land((), "armhf", cpu="cortex-a7"),
    "this machine, tflite-runtime": Land(("tflite-runtime==2.14.0", "numpy<2")),
}


def main() -> None:
    folder, out, *names = [*sys.argv[1:], *[""] * (3 - len(sys.argv))]
    work = Path(folder).resolve()
    run = work / "made" / "run"
    if not run.exists():
        made = make_run(work / "made")
        add_teachers(made)
        export_student(made, 1, 0, work / "made" / "bundle", targets=("onnx", "tflite"))
    measured: dict[str, Any] = {}
    for name in [name for name in names if name] or LANDS:
        begin = time.monotonic()
        answer = measure(work / name.replace(" ", "-").replace(",", ""), LANDS[name], work / "made")
        measured[name] = {**answer, "seconds": time.monotonic() - begin}
    print(table(["user land", "pipeline", "runtime", "self-test", "right", "ms, emulated"], rows(measured)))
    for name, answer in measured.items():
        print(f"\n{name}: {answer['seconds']:.0f} s, making it included")
        print("\n".join(f"- {note}" for note in answer["notes"]))
    if out:
        write_json(Path(out), measured)


def rows(measured: dict[str, Any]) -> list[list[str]]:
    found = []
    for name, answer in measured.items():
        for row in answer["results"]:
            facts = row["device"]
            test = f"{row['self_test']['vectors']} windows" if row.get("self_test") else "-"
            time_ms = f"{row['latency_ms']['p50']:.2f}" if row.get("latency_ms") else row["error"]
            right = "-" if row["accuracy"] is None else f"{row['accuracy']:.3f}"
            where = f"{name} ({facts.get('machine')}, Python {facts.get('python')})"
            versions = " ".join(f"{package} {version}" for package, version in row["versions"].items())
            found.append([where, row["pipeline"], versions or row["runtime"], test, right, time_ms])
    return found


def measure(folder: Path, land: Land, made: Path) -> dict[str, Any]:
    """Bench the made bundle on a user land, through a real sshd; it is made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    python = enter_root(folder, land) if land.arch else make_environment(folder, land)
    shutil.rmtree(folder / "device", ignore_errors=True)
    device = SshDevice(folder / "device")
    device.python(python)
    try:
        command = [sys.executable, "-c", "import sys, topokd_edge.cli; sys.exit(topokd_edge.cli.main())"]
        options = ["--on", device.url, "--run", str(made / "run"), "--seconds", "0.2", "--json"]
        child = subprocess.run(
            [*command, "bench", str(made / "bundle"), *options],
            env={**os.environ, "PATH": f"{device.client}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            check=False,
        )
        if not child.stdout:
            return {"results": [], "notes": [f"the bench ended with status {child.returncode}"]}
        assert device.leftovers() == [], "something stayed on the device"
        return dict(json.loads(child.stdout))
    finally:
        device.close()


def make_environment(folder: Path, land: Land) -> str:
    """Return the command of a virtual environment's Python."""
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *land.wheels], check=True)
    return f'exec {python} "$@"'


def enter_root(folder: Path, land: Land) -> str:
    """Return the command of the Python of a root folder."""
    root = folder / "root"
    if not root.exists():
        make_root(folder / "new", land)
        (folder / "new").rename(root)
    binfmt = BINFMT / f"{QEMU[land.arch]}.conf"
    (folder / "enter").write_text(ENTER.format(binfmt=binfmt, root=root, cpu=land.cpu))
    return f'exec unshare --user --map-root-user --mount sh {folder / "enter"} "$@"'


def make_root(root: Path, land: Land) -> None:
    """Unpack Debian and wheels; nothing of them is run."""
    shutil.rmtree(root, ignore_errors=True)
    options = [f"--arch={land.arch}", "--variant=extract", f"--include={','.join(land.packages)}", "--quiet"]
    source = MIRROR.format(suite=land.suite)
    subprocess.run(["mmdebstrap", *options, land.suite, str(root), source], check=True)
    for place in ("proc", "dev", "tmp"):
        (root / place).mkdir(exist_ok=True)
    for library in ("blas", "lapack"):  # as update-alternatives, which was not run, would link them
        for folder in root.glob(f"usr/lib/*/{library}"):
            (folder.parent / f"lib{library}.so.3").symlink_to(f"{library}/lib{library}.so.3")
    if land.wheels:
        install(root, land)


def install(root: Path, land: Land) -> None:
    """Unpack wheels where pip of a Debian would put them."""
    wheels = root.parent / "wheels"
    platforms = [f"--platform={name}" for name in PLATFORMS[land.arch]]
    needed = ["--no-deps"] if "python3-numpy" in land.packages else []
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", f"--dest={wheels}"),
            *(f"--python-version={land.python}", *platforms, *needed, *land.wheels),
        ],
        check=True,
    )
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(root / f"usr/local/lib/python{land.python}/dist-packages")


if __name__ == "__main__":
    main()
