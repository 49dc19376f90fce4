"""WebAssembly in a bundle: asked for by name, checked when written, refused when changed; in a browser."""

from __future__ import annotations

import base64
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from export_cases import make_run
from topokd_export.export import export_student
from topokd_export.verify import verify_bundle
from topokd_export.wasm import bundled
from topokd_export.wasm.bundled import FILES
from topokd_export.wasm.writer import integrity
from wasm_cases import node, served

from topokd_edge.bundle import Bundle, write_sums
from topokd_edge.errors import CheckFailedError, MissingError, UsageError
from topokd_edge.files import sha256_bytes
from topokd_edge.run import Run

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def exported(run: Run) -> Path:
    out = run.folder.parent / "bundle"
    answer = export_student(run, 1, 0, out, targets=("wasm",))
    assert [item["path"] for item in answer["files"]] == ["student_int8.tflite", *FILES]
    return out


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def test_a_bundle_with_webassembly_is_verified(exported: Path) -> None:
    names = {entry["name"] for entry in verify_bundle(exported)}
    assert {f"{file}, under node" for file in FILES} <= names
    assert Bundle.open(exported).model_path("wasm", "int8") == exported / FILES[0]
    assert "`student.d.ts`" in (exported / "README.md").read_text()


def test_the_script_and_the_manifest_name_the_same_student(exported: Path) -> None:
    manifest = Bundle.open(exported).manifest
    info = node(exported / "wasm", "answer(info);")
    assert info["channels"] == list(manifest.channel_names) and info["units"] == list(manifest.units)
    assert info["classes"] == list(manifest.class_names) and info["rateHz"] == manifest.rate_hz
    listed = {item.path: item.sha256 for item in manifest.files}
    hashes = [
        base64.b64decode(item["hash"].removeprefix("sha256-")).hex() for item in info["builds"].values()
    ]
    assert hashes == [listed[file] for file in FILES]


def test_without_node_the_checks_say_that_nothing_was_run(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "find_node", lambda: None)
    names = {entry["name"] for entry in verify_bundle(exported)}
    assert {f"{file} was not run: there is no node here" for file in FILES} <= names
    assert not any(name.endswith("under node") for name in names)


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[round(place * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_one_flipped_bit_is_noticed(copy: Path, place: float) -> None:
    for path in sorted((copy / "wasm").iterdir()):
        flip(path, place)
        with pytest.raises(CheckFailedError, match=path.name):
            Bundle.open(copy).check_hashes()
        flip(path, place)
    Bundle.open(copy).check_hashes()


def test_changed_scripts_with_honest_hashes_are_not_run(copy: Path) -> None:
    scripts = [path for path in (copy / "wasm").iterdir() if path.suffix != ".wasm"]
    for path in scripts:
        flip(path, 0.5)
    write_sums(copy)
    with pytest.raises(CheckFailedError, match="not what this version writes") as caught:
        verify_bundle(copy)
    assert sorted(caught.value.problems) == sorted(f"wasm/{path.name}" for path in scripts)


def test_a_foreign_module_with_honest_hashes_is_noticed(copy: Path) -> None:
    """Its weights are changed, and the manifest, the script and the hashes say what there is."""
    path = copy / FILES[1]
    before = path.read_bytes()
    content = bytearray(before)
    middle = len(content) * 2 // 3
    content[middle : middle + 2000] = bytes(byte ^ 0x55 for byte in content[middle : middle + 2000])
    path.write_bytes(content)
    for name, form in (("manifest.json", sha256_bytes), ("wasm/student.js", integrity)):
        text = (copy / name).read_text()
        assert form(before) in text
        (copy / name).write_text(text.replace(form(before), form(bytes(content))))
    write_sums(copy)
    with pytest.raises(CheckFailedError, match=path.name):
        verify_bundle(copy)


def test_foreign_logits_are_refused(copy: Path) -> None:
    vectors = dict(np.load(copy / "selftest.npz"))
    vectors[FILES[0]] = np.roll(vectors[FILES[0]], 1, axis=1)
    np.savez(copy / "selftest.npz", **vectors)
    write_sums(copy)
    with pytest.raises(CheckFailedError):
        verify_bundle(copy)


def test_what_makes_no_sense_writes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="--targets wasm is int8"):
        export_student(run, 1, 0, tmp_path / "bundle", targets=("onnx", "wasm"), int8=False)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ziglang" else found(name))
    with pytest.raises(MissingError, match="needs ziglang"):
        export_student(run, 1, 0, tmp_path / "bundle", targets=("wasm",))
    assert not (tmp_path / "bundle").exists()


def dumped(address: str, folder: Path, *flags: str) -> str:
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    base = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}")
    command = [program, *base, "--virtual-time-budget=20000", *flags, address]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert child.returncode == 0, child.stderr[-2000:]
    return child.stdout


@pytest.mark.slow
def test_the_page_passes_its_self_test_in_a_browser(exported: Path, tmp_path: Path) -> None:
    with served(exported) as address:
        page = dumped(f"{address}wasm/index.html", tmp_path, "--dump-dom")
    assert re.search(r'data-state="pass"[^>]*>PASS: 16 windows, every logit as exported', page)
    assert "SIMD build" in page


@pytest.mark.slow
def test_the_page_fails_on_a_changed_module(copy: Path, tmp_path: Path) -> None:
    path = copy / FILES[0]
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with served(copy) as address:
        page = dumped(f"{address}wasm/index.html", tmp_path, "--dump-dom")
    assert re.search(r'data-state="fail"[^>]*>FAIL: not the WebAssembly of this student', page)


@pytest.mark.slow
def test_the_page_classifies_pasted_samples_and_fits_a_phone(exported: Path, tmp_path: Path) -> None:
    """A frame as wide as a phone, driven by the page around it."""
    served_folder = Path(shutil.copytree(exported, tmp_path / "bundle"))
    (served_folder / "frame.html").write_text(FRAME)
    with served(served_folder) as address:
        page = dumped(f"{address}frame.html", tmp_path, "--dump-dom")
    said = re.search(r'id="said">([^<]*)<', page)
    assert said is not None
    width, windows, answer, problem = said[1].split("|")
    assert int(width) <= 390
    assert int(windows) == 31
    assert answer in ("lie", "run", "sit", "stand", "walk")
    assert problem == "line 2, y: oops, expected a number"


FRAME = """<!doctype html><p id="said"></p>
<iframe id="page" src="wasm/index.html" style="width:390px;height:900px;border:0"></iframe>
<script>
const frame = document.getElementById("page");
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
frame.onload = async () => {
  const at = (id) => frame.contentDocument.getElementById(id);
  while (at("test").dataset.state === "waiting") await wait(50);
  at("example").click();
  await wait(500);
  const [windows, answer] = [at("log").children.length, at("answer").textContent];
  at("csv").value = "x,y,z\\n1,oops,3";
  at("run").click();
  await wait(500);
  const width = frame.contentDocument.documentElement.scrollWidth;
  document.getElementById("said").textContent = [width, windows, answer, at("error").textContent].join("|");
};
</script>"""
