"""The house: who imports whom, what stays light, what is never called, what the wheel holds."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import topokd_edge

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "topokd_edge": ROOT / "topokd_edge",
    "topokd_export": ROOT / "export" / "topokd_export",
    "topokd_bench": ROOT / "firmware_bench" / "topokd_bench",
}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
HEAVY = set(PYPROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-module-level-imports"])
LOADED_BY_TYPER = {"pydantic"}
"""Typer itself reads options with it, once a verb is looked at."""
THE_PICKLED_SET = ROOT / "topokd_edge" / "data" / "importers" / "shoulder_watch.py"
"""The one file that may unpickle: bytes whose hash it has checked."""


def sources(package: str) -> list[Path]:
    found = sorted(PACKAGES[package].rglob("*.py"))
    assert found
    return found


ALL_SOURCES = [path for package in PACKAGES for path in sources(package)]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    """Modules a file imports anywhere, also inside functions and for type checking."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def of_packages(modules: set[str], *packages: str) -> set[str]:
    return {module for module in modules if module.partition(".")[0] in packages}


class TestDirections:
    @pytest.mark.parametrize("path", sources("topokd_bench"), ids=name_of)
    def test_the_bench_needs_numpy_and_the_bundle_only(self, path: Path) -> None:
        others = {
            module
            for module in imports(path)
            if module.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", "topokd_bench"}
            and not f"{module}.".startswith("topokd_edge.bundle.")
        }
        assert others == set()

    @pytest.mark.parametrize("path", sources("topokd_export"), ids=name_of)
    def test_the_export_does_not_know_the_bench_or_the_command_line(self, path: Path) -> None:
        found = imports(path)
        assert of_packages(found, "topokd_bench") == set()
        assert {module for module in found if module.startswith("topokd_edge.cli")} == set()

    @pytest.mark.parametrize(
        "path", [path for path in sources("topokd_edge") if path.parent.name != "cli"], ids=name_of
    )
    def test_only_the_command_line_knows_export_and_bench(self, path: Path) -> None:
        found = imports(path)
        assert of_packages(found, "topokd_export", "topokd_bench") == set()
        assert {module for module in found if module.startswith("topokd_edge.cli")} == set()

    def test_an_import_is_seen_wherever_it_stands(self, tmp_path: Path) -> None:
        path = tmp_path / "module.py"
        path.write_text("def f():\n    from topokd_export import student\n    import a.b\n")
        assert imports(path) == {"topokd_export.student", "a.b"}


def run(code: str, *, installed: Path | None = None) -> str:
    """Run code in a fresh interpreter and return what it prints; `installed` is searched before all else."""
    child = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=installed,
        timeout=120,
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


def modules_after(code: str) -> set[str]:
    """Top-level modules loaded by a fresh interpreter after `code`."""
    report = "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    return set(json.loads(run(code + report).splitlines()[-1]))


def dotted(package: str) -> list[str]:
    """Names of all modules of a package."""
    parts = [path.relative_to(PACKAGES[package].parent).with_suffix("").parts for path in sources(package)]
    return [".".join(part[:-1] if part[-1] == "__init__" else part) for part in parts]


HELP_OF_EVERY_VERB = """
import contextlib, io, json, sys
import typer
from topokd_edge import cli

def verbs(command, words=()):
    yield words
    for name, child in getattr(command, "commands", {}).items():
        yield from verbs(child, (*words, name))

answers = {}
for words in verbs(typer.main.get_command(cli.app)):
    sys.argv = ["topokd-edge", *words, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        cli.main()
    answers[" ".join(words)] = [out.getvalue(), sorted({name.partition(".")[0] for name in sys.modules})]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[str, list[str]]]:
    return {verb: (text, modules) for verb, (text, modules) in json.loads(run(HELP_OF_EVERY_VERB)).items()}


class TestLightness:
    def test_the_bench_loads_numpy_and_nothing_else(self) -> None:
        """A Pi has no torch, no typer, no rich."""
        code = "\n".join(f"import {module}" for module in [*dotted("topokd_bench"), "topokd_edge.bundle"])
        new = modules_after(code) - modules_after("import numpy")
        assert new - sys.stdlib_module_names == {"topokd_bench", "topokd_edge"}

    def test_help_of_every_verb_loads_nothing_heavy(self, helps: dict[str, tuple[str, list[str]]]) -> None:
        heavy = {*HEAVY, "numpy"} - LOADED_BY_TYPER
        found = {verb: sorted(heavy & set(modules)) for verb, (_, modules) in helps.items()}
        assert found == {verb: [] for verb in helps}

    def test_every_verb_says_how_it_is_called(self, helps: dict[str, tuple[str, list[str]]]) -> None:
        assert {"", "demo", "data import", "train", "evaluate", "export", "verify", "bench"} <= set(helps)
        groups = {verb.rpartition(" ")[0] for verb in helps} | {""}
        silent = [
            verb
            for verb, (text, _) in helps.items()
            if "Usage:" not in text or (verb not in groups and f"Example: topokd-edge {verb}" not in text)
        ]
        assert silent == []

    def test_a_heavy_module_would_be_seen(self) -> None:
        assert HEAVY & modules_after("import scipy")


JOBLIB_FILES = ("joblib.load", "joblib.dump")
FORBIDDEN_CALLS = (
    *("eval", "exec", "print", "os.system", "os.popen", "torch.load", "torch.save"),
    *JOBLIB_FILES,
)


def calls(tree: ast.AST) -> set[str]:
    """Forbidden things a file does, by name."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            found |= {"pickle"} & {{"cPickle": "pickle"}.get(name, name) for name in names}
            found |= {name for name in names if name in ("dill", "marshal", "shelve", "cloudpickle")}
            if names == ["joblib"]:
                found |= {f"joblib.{alias.name}" for alias in node.names} & set(JOBLIB_FILES)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in FORBIDDEN_CALLS:
                found.add(name)
            for keyword in node.keywords:
                if keyword.arg in ("shell", "allow_pickle") and ast.unparse(keyword.value) != "False":
                    found.add(keyword.arg)
    return found


class TestForbidden:
    @pytest.mark.parametrize("path", ALL_SOURCES, ids=name_of)
    def test_no_file_prints_unpickles_evaluates_or_calls_a_shell(self, path: Path) -> None:
        allowed = {"allow_pickle"} if path == THE_PICKLED_SET else set()
        if path.parent.name in ("cli", "report"):
            allowed |= {"print"}
        assert calls(ast.parse(path.read_text("utf-8"))) <= allowed

    def test_the_exception_is_needed(self) -> None:
        assert calls(ast.parse(THE_PICKLED_SET.read_text("utf-8"))) == {"allow_pickle"}

    @pytest.mark.parametrize(
        ("code", "name"),
        [
            ("import pickle", "pickle"),
            ("from pickle import loads", "pickle"),
            ("def f():\n    eval('1')", "eval"),
            ("subprocess.run('ls', shell=True)", "shell"),
            ("np.load(path, allow_pickle=flag)", "allow_pickle"),
            ("os.system('ls')", "os.system"),
            ("from joblib import Parallel, load", "joblib.load"),
            ("import joblib\njoblib.dump(1, path)", "joblib.dump"),
            ("print(1)", "print"),
        ],
    )
    def test_each_would_be_seen(self, code: str, name: str) -> None:
        assert calls(ast.parse(code)) == {name}

    def test_what_only_looks_alike_is_not(self) -> None:
        code = "model.eval()\nnp.load(path, allow_pickle=False)\nfrom joblib import Parallel"
        assert calls(ast.parse(code)) == set()


def ruff(code: str, file: str) -> set[str]:
    """Codes ruff finds in `code` when it stands in `file`."""
    child = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--no-cache",
            "--output-format=json",
            f"--stdin-filename={file}",
            "-",
        ],
        input=code,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    return {item["code"] for item in json.loads(child.stdout)}


class TestStyleIsEnforced:
    """Controls: the rules are on where they should be."""

    @pytest.mark.parametrize("module", sorted(HEAVY))
    def test_a_heavy_import_at_module_level_is_refused(self, module: str) -> None:
        assert "TID253" in ruff(f"import {module}\n", "topokd_edge/data/new.py")

    def test_inside_a_function_it_is_welcome(self) -> None:
        code = '"""Module."""\n\n\ndef f() -> None:\n    """Do."""\n    import torch\n\n    torch.zeros(1)\n'
        assert ruff(code, "topokd_edge/data/new.py") == set()

    @pytest.mark.parametrize(
        "folder", ["topokd_edge/data", "export/topokd_export", "firmware_bench/topokd_bench"]
    )
    def test_docstrings_annotations_and_no_print(self, folder: str) -> None:
        assert {"D100", "D103", "ANN201", "T201"} <= ruff("def f():\n    print(1)\n", f"{folder}/new.py")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    child = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=120,
    )
    assert child.returncode == 0, child.stderr
    (path,) = folder.glob("*.whl")
    return path


class TestWheel:
    def test_it_holds_the_three_packages_and_nothing_else(self, wheel: Path) -> None:
        names = zipfile.ZipFile(wheel).namelist()
        tops = {name.partition("/")[0] for name in names}
        assert tops == {*PACKAGES, f"topokd_edge-{topokd_edge.__version__}.dist-info"}
        assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
        assert [name for name in names if "test_" in name or name.endswith((".pyc", ".nbi", ".nbc"))] == []

    def test_it_holds_every_file_of_the_packages(self, wheel: Path) -> None:
        names = set(zipfile.ZipFile(wheel).namelist())
        files = {
            path.relative_to(folder.parent).as_posix()
            for folder in PACKAGES.values()
            for path in folder.rglob("*")
            if path.suffix in (".py", ".toml", ".j2", ".typed")
        }
        assert files <= names

    def test_it_works_away_from_the_checkout(self, wheel: Path, tmp_path: Path) -> None:
        """Recipes and the page's template are found inside what was installed."""
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path)
        code = (
            "import json, topokd_edge, topokd_export, topokd_bench\n"
            "from topokd_edge.distill.recipe import builtin_recipes, load_recipe\n"
            "from topokd_edge.report import build\n"
            "names = [load_recipe(name).name for name in builtin_recipes()]\n"
            "modules = (topokd_edge, topokd_export, topokd_bench, build)\n"
            "print(json.dumps([names, [module.__file__ for module in modules]]))"
        )
        names, files = json.loads(run(code, installed=tmp_path))
        assert "demo" in names
        assert all(Path(file).is_relative_to(tmp_path) for file in files)

    def test_the_command_is_installed(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            (entry,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
            assert "topokd-edge = topokd_edge.cli:main" in archive.read(entry).decode()


class TestVersion:
    def test_it_stands_in_one_place(self) -> None:
        version = re.compile(rf"version.*['\"]{re.escape(topokd_edge.__version__)}['\"]")
        files = [*ALL_SOURCES, ROOT / "pyproject.toml"]
        places = [name_of(path) for path in files if version.search(path.read_text("utf-8"))]
        assert places == ["topokd_edge/__init__.py"]

    def test_the_distribution_and_the_changelog_know_it(self) -> None:
        assert metadata.version("topokd-edge") == topokd_edge.__version__
        assert f"## [{topokd_edge.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


class TestPins:
    def test_every_direct_dependency_is_pinned_within_its_range(self) -> None:
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name

        lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
        pinned = {canonicalize_name(name): version for name, version in pins.items()}
        extras = PYPROJECT["project"]["optional-dependencies"].values()
        wanted = [*PYPROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]
        for requirement in map(Requirement, wanted):
            if requirement.name != "topokd-edge":
                version = pinned[canonicalize_name(requirement.name)]
                assert requirement.specifier.contains(version, prereleases=True), requirement
