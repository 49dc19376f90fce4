"""A device behind SSH: its address, and one connection of the system's OpenSSH client to the agent on it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import select
import shlex
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from importlib import resources
from types import TracebackType
from typing import Any

from topokd_edge.bundle import DeviceError, MissingError

TARGET = "ssh://"
_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z_][A-Za-z0-9_.-]*)@)?"
    r"(?P<host>[A-Za-z0-9][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?/?"
)
_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
}
"""No question is asked, nothing is forwarded, and a device that is silent for 15 s is gone.
What is not here, host keys above all, is as the user's own configuration says."""
_BOOT = """import json, os, shutil, sys, tempfile
def refuse(why, text):
    print(json.dumps({"event": "refused", "why": why, "text": text}), flush=True)
    sys.exit(0)
if sys.version_info < (3, 9):
    refuse("python", "%d.%d" % sys.version_info[:2])
os.umask(0o077)
folder = ""
try:
    folder = tempfile.mkdtemp(prefix="topokd-bench-")
    left = int(sys.argv[1])
    agent = os.path.join(folder, "agent.py")
    with open(agent, "wb") as out:
        while left:
            part = os.read(0, min(left, 65536))
            if not part:
                raise OSError("the connection ended")
            out.write(part)
            left -= len(part)
    os.execv(sys.executable, [sys.executable, "-B", agent, folder])
except OSError as error:
    shutil.rmtree(folder, ignore_errors=True)
    refuse("disk", str(error))
"""
"""Takes the agent from standard input, byte by byte as many as it has, and becomes it."""
_FOLDER = re.compile(r"(/[A-Za-z0-9_.-]+)+/topokd-bench-[A-Za-z0-9_]+")
_LONGEST_ANSWER = 64 << 20
_NOT_FOUND = 127


class VanishedError(DeviceError):
    """The connection ended while something was awaited."""


@dataclass(frozen=True)
class Address:
    """A device, as `ssh://user@host:port` names it.

    Attributes
    ----------
    text
        As it was given.
    host, user, port
        Of which user and port may be None: then ssh's configuration decides.
    """

    text: str
    host: str
    user: str | None = None
    port: int | None = None

    def command(self, remote: str) -> list[str]:
        """Return the argument list that runs a fixed command there."""
        options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
        user = [] if self.user is None else ["-l", self.user]
        port = [] if self.port is None else ["-p", str(self.port)]
        return ["ssh", "-T", *options, *user, *port, "--", self.host, remote]


def parse_address(text: str) -> Address:
    """Read `ssh://[user@]host[:port]`.

    Raises
    ------
    ValueError
        When it is anything else.
    """
    found = _ADDRESS.fullmatch(text)
    port = int(found["port"]) if found and found["port"] else None
    if not found or (port is not None and not 1 <= port <= 65535):
        raise ValueError(f"{text!r}: expected ssh://user@host or ssh://user@host:port")
    return Address(text, found["host"].strip("[]"), found["user"], port)


class Agent:
    """The agent on a device, for as long as the `with` block lasts; afterwards nothing of it is left there.

    Attributes
    ----------
    address
        The device.
    facts
        What the device says of itself.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.facts: dict[str, Any] = {}
        self._folder = ""
        self._buffer = b""

    def __enter__(self) -> Agent:
        """Connect, push the agent, and hear what the device is.

        Raises
        ------
        MissingError
            When this machine has no `ssh`.
        DeviceError
            When the device cannot be reached, refuses the key, or cannot run the agent.
        """
        if shutil.which("ssh") is None:
            raise MissingError("ssh:// needs OpenSSH's client", hint="apt install openssh-client")
        source = (resources.files("topokd_bench") / "agent.py").read_bytes()
        remote = f"exec python3 -c {shlex.quote(_BOOT)} {len(source)}"
        self._said = tempfile.TemporaryFile()
        self._ssh = subprocess.Popen(
            self.address.command(remote),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,
        )
        try:
            self._send(source)
            hello = self._answer(60.0, "hello")
            self._folder = str(hello.get("folder", ""))
            self.facts = plain(hello.get("device")) or {"machine": None}
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._ssh.poll() is None:
            with contextlib.suppress(VanishedError):
                self._send(b'{"command": "stop"}\n')
        self._close()

    def put(self, name: str, content: bytes) -> None:
        """Store a file beside the agent, and have its hash checked there.

        Raises
        ------
        DeviceError
            When it does not fit, arrives otherwise than sent, or the connection ends.
        """
        header = {
            "command": "put",
            "name": name,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        self._send(json.dumps(header).encode() + b"\n" + content)
        self._answer(600.0, "stored")

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Measure one model; see `topokd_bench.agent.work` for the job and the answer."""
        self._send(json.dumps({"command": "run", **job}).encode() + b"\n")
        return self._answer(job["timeout"] + 60.0, "measured")

    def _send(self, data: bytes) -> None:
        assert self._ssh.stdin is not None
        try:
            self._ssh.stdin.write(data)
            self._ssh.stdin.flush()
        except OSError:
            raise self._ended() from None

    def _answer(self, timeout: float, event: str) -> dict[str, Any]:
        """Return the next answer; lines before the first one are the device's greeting."""
        end = time.monotonic() + timeout
        while True:
            line = self._line(end)
            try:
                answer = json.loads(line)
            except ValueError:
                answer = None
            if isinstance(answer, dict) and answer.get("event") == "refused":
                raise self._refusal(answer)
            if isinstance(answer, dict) and answer.get("event") == event:
                return answer
            if self.facts:
                raise DeviceError(f"{self.address.text}: answered nonsense: {clean(line[:80])!r}")

    def _line(self, end: float) -> str:
        assert self._ssh.stdout is not None
        pipe = self._ssh.stdout.fileno()
        while b"\n" not in self._buffer:
            if not select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
                raise DeviceError(f"{self.address.text}: no answer in time")
            part = self._ssh.stdout.read1(1 << 20)  # type: ignore[attr-defined]
            if not part or len(self._buffer) > _LONGEST_ANSWER:
                raise self._ended()
            self._buffer += part
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode("utf-8", "replace")

    def _refusal(self, answer: dict[str, Any]) -> DeviceError:
        text, why = clean(str(answer.get("text", ""))), answer.get("why")
        if why == "python":
            return DeviceError(
                f"{self.address.text}: has Python {text}, the agent needs 3.9 or newer",
                hint="install a newer python3 on the device",
            )
        if why == "disk":
            return DeviceError(
                f"{self.address.text}: the temporary folder of the device cannot take the files: {text}",
                hint="make room on the device, or try fewer held-out windows with --windows",
            )
        return DeviceError(f"{self.address.text}: {text} arrived otherwise than it was sent")

    def _ended(self) -> DeviceError:
        """Explain why the connection ended, by the exit status of ssh and what it said."""
        self._kill_after(10.0)
        self._said.seek(0)
        said = clean(self._said.read(1 << 16).decode("utf-8", "replace"))
        return explain(self.address, self._ssh.returncode, said, known=bool(self.facts))

    def _kill_after(self, seconds: float) -> None:
        try:
            self._ssh.wait(seconds)
        except subprocess.TimeoutExpired:
            self._ssh.kill()
            self._ssh.wait()

    def _close(self) -> None:
        """End the connection, upon which the agent removes its folder; do so for an agent that was killed."""
        if self._ssh.stdin is not None:
            with contextlib.suppress(OSError):
                self._ssh.stdin.close()
        self._kill_after(15.0)
        if self._ssh.stdout is not None:
            self._ssh.stdout.close()
        self._said.close()
        if self._ssh.returncode != 0 and _FOLDER.fullmatch(self._folder):
            remove = self.address.command(f"rm -rf -- {shlex.quote(self._folder)}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(remove, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)


def explain(address: Address, status: int, said: str, *, known: bool) -> DeviceError:
    """Return the error of a connection that ended.

    Parameters
    ----------
    address
        The device.
    status, said
        Exit status and standard error of ssh.
    known
        Whether the agent had answered before.
    """
    user = "" if address.user is None else f"{address.user}@"
    port = "" if address.port is None else f"-p {address.port} "
    by_hand = f"ssh {port}{user}{address.host}"
    last = (said.strip().splitlines() or [f"exit status {status}"])[-1].strip()
    if known:
        return VanishedError(f"{address.text}: the device vanished while it was measured ({last})")
    if status == _NOT_FOUND:
        return DeviceError(
            f"{address.text}: no python3 on the device ({last})",
            hint="on a Raspberry Pi: apt install python3",
        )
    if "Host key verification failed" in said:
        return DeviceError(
            f"{address.text}: ssh does not know this host's key, or it has changed",
            hint=f"compare the fingerprint and accept it once: {by_hand}",
        )
    if "Permission denied" in said:
        return DeviceError(
            f"{address.text}: the device refuses the key ({last})",
            hint=f"only keys are tried, never passwords: ssh-copy-id {port}{user}{address.host}",
        )
    return DeviceError(f"{address.text}: cannot be reached ({last})", hint=f"try by hand: {by_hand}")


def plain(facts: Any) -> dict[str, Any]:
    """Return those facts of a device that are text, numbers, truth values, None or lists of text."""
    if not isinstance(facts, dict):
        return {}
    found: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, str):
            found[clean(name)] = clean(value)
        elif isinstance(value, list):
            found[clean(name)] = [clean(item) for item in value if isinstance(item, str)]
        elif value is None or (isinstance(value, int | float) and math.isfinite(value)):
            found[clean(name)] = value
    return found


def clean(text: str) -> str:
    """Return text of a device without what could steer a terminal."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)
