"""The student in a bundle, as an app uses it, and what it refuses."""

from __future__ import annotations

import builtins
import json
import shutil
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_cases import make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from topokd_export.export import export_student

from topokd_edge.bundle import (
    BadInputError,
    Bundle,
    CheckFailedError,
    Manifest,
    MissingError,
    Student,
    open_model,
    write_sums,
)
from topokd_edge.bundle_folder import RATE_TOLERANCE
from topokd_edge.data.clock import STATED_TOLERANCE
from topokd_edge.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def exported(run: Run) -> Path:
    out = run.folder.parent / "bundle"
    export_student(run, 1, 0, out)
    return out


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def signal(run: Run, windows: int = 4) -> np.ndarray:
    """Samples (n, channels) in raw units: windows of the run, one after the other."""
    return np.concatenate([window.T for window in run.windows().x[:windows]])


class TestAnswers:
    def test_they_are_those_of_the_model_file_on_normalised_windows(self, run: Run, exported: Path) -> None:
        samples, bundle = signal(run), Bundle.open(exported)
        length, half = bundle.manifest.length, bundle.manifest.length // 2
        student = Student.load(exported)
        answers = [answer for piece in np.array_split(samples, 23) for answer in student.push(piece)]
        starts = list(range(0, len(samples) - length + 1, length - half))
        assert [answer.start for answer in answers] == starts
        assert all(answer.stop - answer.start == length for answer in answers)
        windows = np.stack([samples[at : at + length].T for at in starts])
        model = open_model(bundle.model_path("onnx", "float32"))
        logits = model.run(bundle.manifest.normalisation.apply(windows))
        np.testing.assert_allclose([answer.logits for answer in answers], logits, atol=1e-4)
        share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose([answer.probability for answer in answers], share.max(axis=1), rtol=1e-4)
        names = [bundle.manifest.class_names[label] for label in logits.argmax(axis=1)]
        assert [answer.class_name for answer in answers] == names

    def test_no_window_crosses_a_gap_and_places_count_what_was_pushed(self, run: Run, exported: Path) -> None:
        samples = signal(run, 3)
        student = Student.load(exported, precision="int8", overlap=0.0)
        length = student.bundle.manifest.length
        first = student.push(samples[: length + 5])
        student.gap()
        second = student.push(samples[length + 5 : 2 * length + 5])
        assert [answer.start for answer in first + second] == [0, length + 5]
        alone = Student.load(exported, precision="int8", overlap=0.0).push(
            samples[length + 5 : 2 * length + 5]
        )
        np.testing.assert_array_equal(second[0].logits, alone[0].logits)

    def test_precision_is_float32_unless_int8_is_asked_for(self, exported: Path) -> None:
        assert Student.load(exported).model.runtime == "onnxruntime"
        assert Student.load(exported, precision="int8").model.runtime == "litert"
        with pytest.raises(BadInputError, match="no int4 model in it, it has onnx float32"):
            Student.load(exported, precision="int4")


def test_the_python_of_the_page_in_the_bundle_runs(
    run: Run, exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (exported / "README.md").read_text("utf-8")
    block = page[page.index("    from topokd_edge.bundle import Student") :].split("\n\nA recording")[0]
    monkeypatch.chdir(exported)
    exec(compile(textwrap.dedent(block), "README.md", "exec"), {"samples": signal(run, 2)})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["0", "50"], ["25", "75"], ["50", "100"]]
    assert (exported / "MODEL_CARD.md").read_text("utf-8").startswith("---\nlicense: ")


class TestFeed:
    def test_what_the_app_feeds_is_compared(self, exported: Path) -> None:
        manifest = Bundle.open(exported).manifest
        names, units = manifest.channel_names, manifest.units
        Student.load(exported, channels=names, units=units, rate_hz=manifest.rate_hz * 1.004)
        with pytest.raises(BadInputError) as caught:
            Student.load(exported, channels=names[::-1], units=("g",) * 3, rate_hz=50)
        assert caught.value.problems == (
            "channels z, y, x; expected, in this order, x, y, z",
            "units g, g, g; expected, in this order, mV, g, uT",
            "50 Hz; expected 30.5 Hz",
        )
        assert RATE_TOLERANCE == STATED_TOLERANCE, "an app and an importer accept the same rates"
        with pytest.raises(BadInputError, match="nan Hz"):
            Student.load(exported, rate_hz=float("nan"))

    @pytest.mark.parametrize(
        ("samples", "message"),
        [
            ([[1.0, 2.0]], r"shape \(1, 2\), expected \(n, 3 channels\)"),
            (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\)"),
            ([[0, 0, 0], [0, np.nan, 0]], "sample 1, channel 1: nan"),
            ([[0, 0, -np.inf]], "sample 0, channel 2: -inf"),
            ([[0, 0, 1e300]], "sample 0, channel 2: inf"),
            ([[100, 1e9, 0]], r"sample 0, channel 1: 1e\+09 is 1e\+09 standard deviations"),
            ([["a", "b", "c"]], "not numbers"),
            ([[1, 2, 3], [1, 2]], "not numbers"),
            ([[{}, 1, 2]], "not numbers"),
        ],
    )
    def test_bad_samples_are_named_and_none_is_taken(
        self, exported: Path, samples: Any, message: str
    ) -> None:
        student = Student.load(exported)
        student.push(np.tile([[100, -3, 0.01]], (5, 1)))
        with pytest.raises(BadInputError, match=message):
            student.push(samples)
        length = student.bundle.manifest.length
        answers = student.push(np.tile([[100, -3, 0.01]], (length - 5, 1)))
        assert [answer.start for answer in answers] == [0]


class TestRuntimes:
    def test_the_next_file_is_taken_where_a_runtime_is_missing(
        self, exported: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        without(monkeypatch, "onnxruntime")
        student = Student.load(exported)
        assert (student.model.runtime, student.model.input_shape) == ("litert", (3, 50))

    def test_without_any_runtime_each_is_named(self, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        without(monkeypatch, "onnxruntime", "ai_edge_litert", "tflite_runtime")
        with pytest.raises(MissingError) as caught:
            Student.load(exported)
        assert "onnxruntime" in str(caught.value)
        assert "ai-edge-litert" in str(caught.value)

    def test_a_model_that_answers_otherwise_is_refused(self, copy: Path) -> None:
        vectors = dict(np.load(copy / "selftest.npz"))
        vectors["student_float32.onnx"] = np.roll(vectors["student_float32.onnx"], 1, axis=1)
        np.savez(copy / "selftest.npz", **vectors)
        write_sums(copy)
        with pytest.raises(CheckFailedError, match=r"onnxruntime .* answers otherwise"):
            Student.load(copy)

    def test_a_changed_file_is_refused(self, copy: Path) -> None:
        with (copy / "README.md").open("a") as stream:
            stream.write(" ")
        with pytest.raises(CheckFailedError, match=r"(?s)README.md: content changed"):
            Student.load(copy)


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Let imports of packages fail as where they are not installed."""
    import importlib.util

    real_import, real_find = builtins.__import__, importlib.util.find_spec

    def refusing(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] in packages:
            raise ImportError(f"No module named {name!r}")
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refusing)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in packages else real_find(name, *rest)
    )


class TestHostileFolders:
    def test_a_huge_manifest_is_not_read(self, copy: Path) -> None:
        with (copy / "manifest.json").open("r+b") as stream:
            stream.truncate(1 << 30)
        with pytest.raises(BadInputError, match=r"manifest\.json: 1073741824 bytes, expected at most"):
            Bundle.open(copy)

    def test_nested_without_end(self, copy: Path) -> None:
        (copy / "manifest.json").write_text("[" * 200_000)
        with pytest.raises(BadInputError, match="not readable as JSON"):
            Bundle.open(copy)

    def test_vectors_that_unpack_to_gigabytes(self, copy: Path) -> None:
        with zipfile.ZipFile(copy / "selftest.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", b"\0" * (65 << 20))
        with pytest.raises(BadInputError, match="unpacks to 68157440 bytes"):
            Bundle.open(copy).self_test()

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"PK\x05\x06" + bytes(18)])
    def test_damaged_vectors(self, copy: Path, content: bytes) -> None:
        (copy / "selftest.npz").write_bytes(content)
        with pytest.raises(BadInputError, match=r"selftest\.npz"):
            Bundle.open(copy).self_test()

    def test_a_model_of_another_size(self, copy: Path) -> None:
        with (copy / "student_int8.tflite").open("r+b") as stream:
            stream.truncate(1 << 34)
        with pytest.raises(BadInputError, match=r"student_int8\.tflite has 17179869184 bytes"):
            Bundle.open(copy)

    def test_a_link_to_itself(self, copy: Path) -> None:
        (copy / "student_float32.onnx").unlink()
        (copy / "student_float32.onnx").symlink_to("student_float32.onnx")
        with pytest.raises(BadInputError, match="is named and is not there"):
            Bundle.open(copy)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 2**63, 1e308, 5e-324, -1, 0])
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["../x", "/x", "a\0b", "\ud800", "x" * 5000, "con:", "."]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a JSON document."""
    found = [path] if path else []
    keys = (
        document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    )
    return found + [place for key in keys for place in places(document[key], (*path, key))]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_manifest_is_usable_or_refused(exported: Path, data: st.DataObject) -> None:
    """One or two values are anything: what is accepted can be written again, encoded, and computed with."""
    document = json.loads((exported / "manifest.json").read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        *parents, last = data.draw(st.sampled_from(places(document)))
        inner = document
        for key in parents:
            inner = inner[key]
        inner[last] = data.draw(JSON)
    try:
        manifest = Manifest.from_json(document, "fuzzed")
    except BadInputError as error:
        assert str(error).encode("utf-8")
        return
    assert "".join([*manifest.class_names, *manifest.channel_names, *manifest.units]).encode("utf-8")
    assert len(set(manifest.class_names)) == len(manifest.class_names)
    for item in (*(file.path for file in manifest.files), manifest.self_test):
        assert exported.resolve() in (exported / item).resolve().parents
    window = np.zeros((1, manifest.channels, 4), dtype=np.float32)
    with np.errstate(over="ignore"):
        assert not np.isnan(manifest.normalisation.apply(window)).any()
