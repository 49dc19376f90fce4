"""What a person relies on when something is not installed: the truth, and the command that mends it."""

import json
import subprocess
import sys
from importlib import metadata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from topokd_edge.cli import _diagnosis, _installed
from topokd_edge.cli._installed import Package, satisfies, try_import

RELEASE = st.lists(st.integers(0, 12), min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))


@settings(deadline=None, max_examples=200)
@given(RELEASE, st.lists(st.tuples(st.sampled_from([">=", "<=", "==", "<", ">"]), RELEASE), max_size=2))
def test_versions_are_compared_as_pip_does(version, clauses):
    wanted = ",".join(operator + bound for operator, bound in clauses)
    assert satisfies(version, wanted) == SpecifierSet(wanted).contains(version)


def test_a_local_version_counts_as_its_release():
    assert satisfies("2.13.0+cpu", "<2.15,>=2.9")


def test_the_list_is_what_the_distribution_says():
    listed = {(item.extra, item.name): item for item in _installed.packages()}
    for text in metadata.requires("topokd-edge"):
        requirement = Requirement(text)
        extras = [
            extra for extra in ("train", "export", "bench", "demo") if f'"{extra}"' in str(requirement.marker)
        ]
        for extra in extras or ([] if requirement.marker else ["base"]):
            assert SpecifierSet(listed[extra, requirement.name].wanted) == requirement.specifier
    assert {"numpy", "rich", "typer"} == {name for extra, name in listed if extra == "base"}


def test_what_is_missing_names_the_command():
    packages = [Package("train", "torch", ">=2.9", ""), Package("bench", "onnxruntime", ">=1.20", "1.2")]
    lines = _diagnosis.missing_extras(packages)
    assert "torch" in lines[0] and "pip install 'topokd-edge[train]'" in lines[0]
    assert "onnxruntime" in lines[1] and "pip install 'topokd-edge[bench]'" in lines[1]
    assert _diagnosis.needed(packages) == []


def test_a_base_package_that_is_missing_is_a_problem():
    assert "numpy" in _diagnosis.needed([Package("base", "numpy", ">=1.26", "")])[0]


def test_a_library_that_crashes_is_told_and_does_not_crash_the_doctor():
    works, said = try_import("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    assert not works and "signal 4" in said
    assert try_import("import no_such_module")[1].startswith("ModuleNotFoundError")
    assert try_import("print('fine')") == (True, "fine")
    assert "0.2 s" in try_import("import time; time.sleep(9)", timeout=0.2)[1]


def test_tflite_runtime_beside_numpy_2_is_told_before_it_crashes():
    if satisfies(metadata.version("numpy"), "<2"):
        pytest.skip("numpy 1 is installed")
    assert "numpy<2" in _diagnosis.runtime_advice({"tflite-runtime": (True, "")})[0]
    assert _diagnosis.runtime_advice({"ai-edge-litert": (True, "")}) == []


def test_doctor_answers_one_json_document():
    code = "from topokd_edge.cli import main; main()"
    child = subprocess.run([sys.executable, "-c", code, "doctor", "--json"], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    answer = json.loads(child.stdout)
    assert answer["ok"] and answer["problems"] == []
    assert {"python", "device", "torch_device", "packages", "runtimes", "advice"} <= set(answer)
    assert all(item["works"] for item in answer["runtimes"])
