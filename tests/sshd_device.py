"""A device for the tests: a real sshd on a random loopback port, with keys made for the day."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from topokd_edge.cli import main

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
SSH = shutil.which("ssh")
NEEDED = "apt-get install openssh-server openssh-client: the bench over SSH is tested against a real sshd"


class SshDevice:
    """An sshd whose users have `bin` as their PATH and `tmp` as their temporary folder.

    `home` holds what OpenSSH's client of this user would have in ~/.ssh; a wrapper named ssh, in `client`,
    points the real client at it.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        assert SSHD and SSH, NEEDED
        self.folder = folder
        self.bin, self.tmp, self.client = (folder / name for name in ("bin", "tmp", "client"))
        for path in (self.bin, self.tmp, self.client):
            path.mkdir(parents=True)
        self.python(f'exec {sys.executable} "$@"')
        for name in ("host", "user", "other"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
        shutil.copy(folder / "user.pub", folder / "authorized")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"
        self._configure(
            {"PATH": f"{self.bin}:/usr/bin:/bin", "TMPDIR": str(self.tmp), "HOME": str(folder), **environment}
        )
        self.trust("user")
        self.accept_host()
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log, stdin=subprocess.DEVNULL
            )
        self._wait()

    def python(self, command: str) -> None:
        """Make `python3` of the device a shell script."""
        path = self.bin / "python3"
        path.write_text(f"#!/bin/sh\n{command}\n")
        path.chmod(0o755)

    def trust(self, key: str) -> None:
        """Make the client use this key."""
        (self.folder / "ssh_config").write_text(
            f"IdentityFile {self.folder / key}\nIdentitiesOnly yes\nIdentityAgent none\n"
            f"UserKnownHostsFile {self.folder / 'known'}\nGlobalKnownHostsFile /dev/null\n"
        )
        ssh = self.client / "ssh"
        ssh.write_text(f'#!/bin/sh\nexec {SSH} -F {self.folder / "ssh_config"} "$@"\n')
        ssh.chmod(0o755)

    def accept_host(self) -> None:
        key = (self.folder / "host.pub").read_text()
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {key}")

    def forget_host(self) -> None:
        (self.folder / "known").write_text("")

    def leftovers(self, seconds: float = 5.0) -> list[str]:
        """Names in the temporary folder, once it is empty or the seconds are over."""
        end = time.monotonic() + seconds
        while (names := [path.name for path in self.tmp.iterdir()]) and time.monotonic() < end:
            time.sleep(0.02)
        return names

    def cut(self) -> None:
        """End the sshd processes of all connections, as a pulled plug would."""
        for pid in _children(self.process.pid):
            for inner in _children(pid):
                if b"sshd" in Path(f"/proc/{inner}/cmdline").read_bytes():
                    os.kill(inner, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()

    def _configure(self, environment: dict[str, str]) -> None:
        words = " ".join(f'"{name}={value}"' for name, value in environment.items())
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder / 'host'}",
            f"AuthorizedKeysFile {self.folder / 'authorized'}",
            f"PidFile {self.folder / 'pid'}",
            *("StrictModes no", "UsePAM no", "PasswordAuthentication no", "PermitRootLogin yes"),
            "KbdInteractiveAuthentication no",
            f"SetEnv {words}",
        ]
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)

    def _wait(self) -> None:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.02)
        raise AssertionError("sshd does not listen")


def _children(pid: int) -> list[int]:
    return [
        int(number)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for number in task.read_text().split()
    ]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)


def package(folder: Path, name: str, code: str) -> None:
    """Put a module into the device's Python, in front of the real one."""
    path = folder / "site" / Path(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    if "." in name:
        (path.parent / "__init__.py").touch()
    path.write_text(code)


def arguments(made: tuple[Path, Path], target: str, *more: str) -> list[str]:
    bundle, run = (str(path) for path in made)
    return ["bench", bundle, "--on", target, "--run", run, "--seconds", "0.02", "--windows", "40", *more]


class Answer:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.err = code, err
        self.document: dict[str, Any] = json.loads(out) if out else {}
        self.rows = {row["pipeline"]: row for row in self.document.get("results", [])}


def run_bench(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Answer:
    """Call the command in this process and read its JSON."""
    monkeypatch.setattr(sys, "argv", ["topokd-edge", *words, "--json"])
    try:
        code = main()
    except SystemExit as ended:
        code = ended.code
    return Answer(int(code or 0), *capsys.readouterr())
