"""ONNX Runtime's reports to its maker are off: nothing names the user, nothing is stored for sending."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ASKS = {
    "a model file": """
from pathlib import Path
from topokd_edge.bundle import open_model
from topokd_edge.errors import BadInputError
Path("a.onnx").write_bytes(b"nothing")
try:
    open_model(Path("a.onnx"))
except BadInputError as error:
    assert "refused by onnxruntime" in str(error)
Path("a.onnx").unlink()
""",
    "doctor": "from topokd_edge.cli._diagnosis import try_runtimes; assert try_runtimes()['onnxruntime'][0]",
}


def stored(home: Path, code: str, **decided: str) -> list[str]:
    """Files that code leaves in the home folder of a user who is not a test."""
    names = ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    known = {name: value for name, value in os.environ.items() if name not in names}
    child = subprocess.run(
        [sys.executable, "-c", code],
        cwd=home,
        env={**known, "HOME": str(home), **decided},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return [path.name for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("what", ASKS)
def test_nothing_is_stored(tmp_path: Path, what: str) -> None:
    assert stored(tmp_path, ASKS[what]) == []


def test_a_user_may_decide_otherwise(tmp_path: Path) -> None:
    code = "import os; from topokd_edge.runtime import import_onnxruntime as load; load()"
    code += "; assert os.environ['ORT_DISABLE_TELEMETRY'] == '0'"
    stored(tmp_path, code, ORT_DISABLE_TELEMETRY="0")
