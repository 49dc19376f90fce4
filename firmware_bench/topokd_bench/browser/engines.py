"""Engines of others that run a student in a browser: what a page needs of their npm packages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topokd_edge.bundle import BadInputError


@dataclass(frozen=True)
class Engine:
    """An engine, read from the folders of its npm packages.

    Attributes
    ----------
    runtime
        "onnxruntime-web" or "litert.js", as results call it.
    adapter
        File of the page that drives it.
    versions
        Of each package.
    files
        Contents by address under the page.
    """

    runtime: str
    adapter: str
    versions: Mapping[str, str]
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class _Package:
    """What a page needs of a package: addresses under the page, and the files that stand for them."""

    runtime: str
    adapter: str
    files: Mapping[str, str]
    needs: str = ""


_LITERT = [f"litert_wasm_{kind}internal.{suffix}" for kind in ("", "compat_") for suffix in ("js", "wasm")]
_PACKAGES = {
    "onnxruntime-web": _Package(
        "onnxruntime-web",
        "engine.onnxruntime-web.js",
        {
            f"onnxruntime-web/{name}": f"dist/{name}"
            for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
        },
    ),
    "@litertjs/core": _Package(
        "litert.js",
        "engine.litert.js",
        {"litert/index.js": "dist/index.js", **{f"litert/wasm/{name}": f"wasm/{name}" for name in _LITERT}},
        needs="@litertjs/wasm-utils",
    ),
}
"""By the name in their package.json. Of LiteRT.js a browser takes one pair, for relaxed vectors or compat."""
_NEEDED = {"@litertjs/wasm-utils": ("litert/wasm-utils.js", "dist/index.js")}


def read_engine(folder: Path) -> Engine:
    """Read an engine from the folder of its unpacked npm package.

    Raises
    ------
    BadInputError
        When it is no such package, another than is known, or lacks files, all of which are named.
    """
    name, version = _identity(folder, f"one of {', '.join(_PACKAGES)}")
    package = _PACKAGES.get(name)
    if package is None:
        raise BadInputError(
            f"{folder}: the package {name}, expected one of {', '.join(_PACKAGES)}",
            hint=_hint(next(iter(_PACKAGES))),
        )
    versions, sources = {name: version}, {address: folder / path for address, path in package.files.items()}
    if package.needs:
        beside = _beside(folder, name, package.needs)
        needed, versions[package.needs] = _identity(beside, package.needs)
        if needed != package.needs:
            raise BadInputError(f"{beside}: the package {needed}, expected {package.needs}", hint=_hint(name))
        address, path = _NEEDED[package.needs]
        sources[address] = beside / path
    missing = [str(path) for path in sources.values() if not path.is_file()]
    if missing:
        raise BadInputError(
            f"{folder}: {name} {version} without files that a page needs", problems=missing, hint=_hint(name)
        )
    files = {address: path.read_bytes() for address, path in sources.items()}
    if package.needs:
        files["litert/index.js"] = _by_address(
            files["litert/index.js"], package.needs, sources["litert/index.js"]
        )
    return Engine(package.runtime, package.adapter, versions, files)


def _identity(folder: Path, expected: str) -> tuple[str, str]:
    """Return the name and version of a package."""
    path = folder / "package.json"
    try:
        document: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        document = None
    said = document if isinstance(document, dict) else {}
    name, version = (_short(said.get(key)) for key in ("name", "version"))
    if not name or not version:
        raise BadInputError(
            f"{path}: expected the package.json of {expected}, with name and version",
            hint=_hint(next(iter(_PACKAGES))),
        )
    return name, version


def _short(text: Any) -> str:
    """Return a text that can be printed; empty when it is none."""
    return text if isinstance(text, str) and text.isprintable() and len(text) < 100 else ""


def _beside(folder: Path, name: str, needed: str) -> Path:
    """Return the folder of a package that another needs, where npm puts it: inside, or beside."""
    above = folder.resolve().parents[name.count("/")]
    places = [folder / "node_modules" / needed, above / needed]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise BadInputError(
            f"{folder}: {name} needs {needed}, which is not there",
            problems=[str(place) for place in places],
            hint=_hint(name),
        )
    return found


def _by_address(script: bytes, name: str, path: Path) -> bytes:
    """Return a script whose one import of a package is of `./wasm-utils.js`: workers have no import maps."""
    bare = f'from "{name}"'.encode()
    if script.count(bare) != 1:
        raise BadInputError(
            f"{path}: expected one import {bare.decode()}, found {script.count(bare)}",
            hint="this version is put together otherwise; take @litertjs/core 2.5",
        )
    return script.replace(bare, b'from "./wasm-utils.js"')


def _hint(name: str) -> str:
    return f"npm install {name}, then --engine node_modules/{name}"
