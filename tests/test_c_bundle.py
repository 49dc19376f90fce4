"""C in a bundle: asked for by name, checked when written, refused when changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from c_cases import any_levels, compiled, graph_of, random_int8, tflm_logits
from export_cases import make_run
from topokd_export.c.bundled import MAIN_FILE
from topokd_export.c.host import find_compiler
from topokd_export.export import export_student
from topokd_export.verify import verify_bundle

from topokd_edge.bundle import Bundle, write_sums
from topokd_edge.errors import CheckFailedError, MissingError, UsageError
from topokd_edge.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def exported(run: Run) -> Path:
    out = run.folder.parent / "bundle"
    answer = export_student(run, 1, 0, out, targets=("c",))
    assert [item["path"] for item in answer["files"]] == ["student_int8.tflite", MAIN_FILE]
    assert set(answer["c"]) == {"arena_bytes", "ram_bytes", "weight_bytes"}
    return out


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def test_a_bundle_with_c_is_verified(exported: Path) -> None:
    checks = verify_bundle(exported)
    assert {"c/student.c, compiled here", "c/student.c against the reference kernels"} <= {
        entry["name"] for entry in checks
    }
    bundle = Bundle.open(exported)
    assert bundle.model_path("c", "int8") == exported / MAIN_FILE
    assert "`student.h`" in (exported / "README.md").read_text()


def test_the_example_runs_and_notices_a_wrong_weight(copy: Path) -> None:
    compiler = [
        *find_compiler(),
        "-std=c99",
        "-O1",
        "-o",
        "selftest",
        "main.c",
        "student.c",
        "topokd_kernels.c",
    ]
    subprocess.run(compiler, cwd=copy / "c", check=True)
    assert subprocess.run([copy / "c" / "selftest"], check=False).returncode == 0
    source = copy / "c" / "student.c"
    text = source.read_text()
    at = text.index("{", text.index("weight_3[")) + 5
    source.write_text(text[:at] + " 127, -127, 127, -127, 0," + text[text.index("\n", at) :])
    subprocess.run([*compiler, "-Wno-everything"][:-1], cwd=copy / "c", check=True)
    assert subprocess.run([copy / "c" / "selftest"], check=False).returncode == 1


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_one_flipped_bit_is_noticed(copy: Path, place: float) -> None:
    for path in sorted(path for path in (copy / "c").rglob("*") if path.is_file()):
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[round(place * (len(content) - 1))] ^= 0x10
        path.write_bytes(flipped)
        with pytest.raises(CheckFailedError, match=path.name):
            Bundle.open(copy).check_hashes()
        write_sums(copy)  # now with honest hashes: what was written is still not what the model gives
        with pytest.raises(CheckFailedError, match=path.name):
            verify_bundle(copy)
        path.write_bytes(content)
        write_sums(copy)
    verify_bundle(copy)


def test_foreign_logits_are_refused(copy: Path) -> None:
    vectors = dict(np.load(copy / "selftest.npz"))
    vectors[MAIN_FILE] = np.roll(vectors[MAIN_FILE], 1, axis=1)
    np.savez(copy / "selftest.npz", **vectors)
    write_sums(copy)
    with pytest.raises(CheckFailedError):
        verify_bundle(copy)


def test_c_under_another_name_or_without_its_int8_file_is_refused(copy: Path) -> None:
    document = json.loads((copy / "manifest.json").read_text())
    names = [item["path"] for item in document["files"]]

    def rewrite() -> None:
        (copy / "manifest.json").write_text(json.dumps(document))
        write_sums(copy)

    (copy / "other.c").write_bytes((copy / MAIN_FILE).read_bytes())
    vectors = dict(np.load(copy / "selftest.npz"))
    np.savez(copy / "selftest.npz", **{**vectors, "other.c": vectors[MAIN_FILE]})
    document["files"][names.index(MAIN_FILE)]["path"] = "other.c"
    rewrite()
    with pytest.raises(CheckFailedError, match=r"c files \['other.c'\], expected \['c/student.c'\]"):
        verify_bundle(copy)
    (copy / "student_int8.tflite").unlink()
    del document["files"][names.index("student_int8.tflite")]
    rewrite()
    with pytest.raises(CheckFailedError, match=r"without the student_int8\.tflite that other\.c"):
        verify_bundle(copy)


def test_c_without_int8_makes_no_sense(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--targets c is int8"):
        export_student(run, 1, 0, tmp_path / "bundle", targets=("c",), int8=False)
    assert not (tmp_path / "bundle").exists()


def test_ziglang_serves_where_there_is_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_compiler()[1:] == ["-m", "ziglang", "cc"]
    content = random_int8(1)
    levels = any_levels(graph_of(content), 10)
    assert np.array_equal(compiled(content).invoke(levels), tflm_logits(content, levels))


def test_without_any_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "ziglang", None)
    with pytest.raises(MissingError, match="needs a C compiler") as caught:
        find_compiler()
    assert "topokd-edge[c]" in caught.value.hint
