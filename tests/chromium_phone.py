"""Chromium as a phone, driven over a pipe (Chrome DevTools Protocol)."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser_cases import PIXEL

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Phone:
    """One tab, 390 x 844 with touch."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._rest = to, back, b""
        self._numbers = itertools.count(1)
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setTouchEmulationEnabled", enabled=True)
        self.call("Emulation.setUserAgentOverride", userAgent=PIXEL)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._back], [], [], 60)[0], "Chromium says nothing"
            piece = os.read(self._back, 1 << 20)
            assert piece, "Chromium has ended"
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def value(self, expression: str, *, tapped: bool = False) -> Any:
        """Value of JavaScript, promises awaited."""
        answer = self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=tapped,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = 60.0) -> Any:
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            found = self.value(expression)
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError(
            f"{expression} stays false; the page says: {self.value('document.body.innerText')}"
        )

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def phone(folder: Path, *flags: str) -> Iterator[Phone]:
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    (theirs_in, ours_out), (ours_in, theirs_out) = _pipe(), _pipe()
    script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
    base = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command = ["bash", "-c", script, "bash", program, *base, "--remote-debugging-pipe", *flags, "about:blank"]
    child = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL)
    try:
        yield Phone(ours_out, ours_in)
    finally:
        child.terminate()
        child.wait(20)
        for end in (theirs_in, ours_out, ours_in, theirs_out):
            os.close(end)


def _pipe() -> tuple[int, int]:
    """A pipe whose numbers are out of the way of 3 and 4, which Chromium talks on."""
    low = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in low]
    for end in low:
        os.close(end)
    return high[0], high[1]
