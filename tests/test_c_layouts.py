"""The C folder as an Arduino library, a PlatformIO library and a Zephyr module, built by a plain toolchain.

None of the three build systems is here: stubs stand for Arduino.h and for Zephyr's CMake functions.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cmake
import numpy as np
import pytest
import yaml
from c_cases import NAMES, NORMALISATION, c_files, graph_of, int8_file, tflm_logits
from export_cases import LENGTH, activities
from topokd_export.c.host import SOURCES, find_compiler
from topokd_export.c.layouts import LAYOUTS, write_layouts

from topokd_edge.bundle import dequantise, quantise_input

CXX = ("g++",) if shutil.which("g++") else (sys.executable, "-m", "ziglang", "cc")
ARDUINO_H = """#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
unsigned long micros();
void delay(unsigned long);
struct Port { void begin(long) {} void println(const char *text) { puts(text); } };
static Port Serial;
"""
BOARD = """#include <Arduino.h>
static uint32_t now = 0xFFFF0000u; /* the clock wraps on the way */
static int lost = {lost};
static int taken, loops;
unsigned long micros() {{
  now += 500u;
  if (taken == lost) {{ now += 100000u; lost = -1; }}
  return now;
}}
void delay(unsigned long ms) {{ now += 1000u * ms; loops = 1; }}
static const float samples[] = {{{samples}}};
static float next_value(int channel) {{
  if (channel == 0) taken++;
  return samples[(taken - 1) * {channels} + channel];
}}
#include "{sketch}"
int main() {{
  setup();
  while (taken < {count} && loops == 0) loop();
}}
"""
ZEPHYR = """cmake_minimum_required(VERSION 3.20)
project(app C)
add_library(zephyr_interface INTERFACE)
function(zephyr_include_directories)
  target_include_directories(zephyr_interface INTERFACE ${{ARGV}})
endfunction()
macro(zephyr_library_named name)
  add_library(${{name}} STATIC)
  set(ZEPHYR_CURRENT_LIBRARY ${{name}})
  target_link_libraries(${{name}} PUBLIC zephyr_interface)
  set(zephyr_library_made ${{name}} PARENT_SCOPE)
endmacro()
function(zephyr_library_sources)
  target_sources(${{ZEPHYR_CURRENT_LIBRARY}} PRIVATE ${{ARGV}})
endfunction()
function(zephyr_library_sources_ifdef option)
  if(${{option}})
    zephyr_library_sources(${{ARGN}})
  endif()
endfunction()
function(zephyr_library_compile_definitions)
  target_compile_definitions(${{ZEPHYR_CURRENT_LIBRARY}} PRIVATE ${{ARGV}})
endfunction()
function(zephyr_library_compile_options)
  target_compile_options(${{ZEPHYR_CURRENT_LIBRARY}} PRIVATE ${{ARGV}})
endfunction()
{options}
add_subdirectory({module} module)
add_executable(app app.c)
target_link_libraries(app PRIVATE ${{zephyr_library_made}})
"""
CALLER = """#include "student.h"
int student_self_test(void);
int main(void) { return student_self_test(); }
"""

JAVA = """package com.example;
import java.nio.file.*;
class Student {
  static { System.loadLibrary("student"); }
  static native int push(float[] sample);
  public static void main(String[] none) throws Exception {
    for (String line : Files.readAllLines(Path.of("raw.txt"))) {
      String[] words = line.split(" ");
      float[] sample = new float[words.length];
      for (int i = 0; i < words.length; i++) sample[i] = Float.parseFloat(words[i]);
      int label = push(sample);
      if (label >= 0) System.out.println(label);
    }
    if (push(new float[1]) != -1) System.out.println("taken");
  }
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C folder as a bundle has it."""
    folder = tmp_path_factory.mktemp("c")
    for name, text in {**c_files(int8_file()), **write_layouts(graph_of(int8_file()), 50.0)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


CMAKE = Path(cmake.CMAKE_BIN_DIR) / "cmake"


def run(*command: str | Path, cwd: Path) -> str:
    child = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert child.returncode == 0, (child.stdout + child.stderr)[-3000:]
    return child.stdout


def sketch(library: Path, name: str, folder: Path, raw: np.ndarray, lost: int = -1) -> list[str]:
    """What a sketch prints that reads `raw`, (n, channels): compiled as Arduino compiles a flat library."""
    text = (library / "examples" / name / f"{name}.ino").read_text()
    text = text.replace("sample[channel] = 0.0f", "sample[channel] = next_value(channel)")
    (folder / "Arduino.h").write_text(ARDUINO_H)
    (folder / "sketch.ino").write_text(text)
    numbers = ", ".join(f"{value:.9g}f" if value % 1 else f"{value:.1f}f" for value in raw.ravel().tolist())
    board = BOARD.format(
        lost=lost, samples=numbers, channels=raw.shape[1], sketch="sketch.ino", count=len(raw)
    )
    (folder / "board.cpp").write_text(board)
    include = ("-DARDUINO=10819", f"-I{folder}", f"-I{library}", "-O1")
    strict = (
        "-x",
        "c++",
        "-std=c++11",
        "-fno-exceptions",
        "-Wall",
        "-Wextra",
        "-Wno-unused-function",
        "-Werror",
    )
    run(*CXX, *strict, *include, "-c", "board.cpp", "-o", "board.o", cwd=folder)
    run(
        *find_compiler(),
        *include,
        "-std=gnu99",
        *sorted(library.glob("*.c")),
        "board.o",
        "-o",
        "board",
        cwd=folder,
    )
    return run(folder / "board", cwd=folder).splitlines()


def stream() -> tuple[np.ndarray, np.ndarray]:
    """Levels (n, channels) of some activities, and the raw samples that are in the middle of each level."""
    graph = graph_of(int8_file())
    x = np.concatenate(list(activities(5, seed=3)[0]), axis=1).T
    levels = quantise_input(x, graph.input.scale, graph.input.zero_point)
    real = dequantise(levels, graph.input.scale, graph.input.zero_point)
    return levels, real * np.float32(NORMALISATION.std) + np.float32(NORMALISATION.mean)


@pytest.mark.parametrize("lost", [None, 60])
def test_the_arduino_sketch_prints_the_class_of_every_window(
    library: Path, tmp_path: Path, lost: int | None
) -> None:
    levels, raw = stream()
    parts = [levels] if lost is None else [levels[:lost], levels[lost:]]
    step = (LENGTH + 1) // 2
    windows = [part[at : at + LENGTH] for part in parts for at in range(0, len(part) - LENGTH + 1, step)]
    labels = tflm_logits(int8_file(), np.array(windows)).argmax(axis=1)
    assert len(set(labels.tolist())) > 2
    printed = sketch(library, "classify", tmp_path, raw, -1 if lost is None else lost)
    assert printed == [NAMES[label] for label in labels]


def test_the_arduino_self_test_says_right_or_wrong(library: Path, tmp_path: Path) -> None:
    raw = stream()[1]
    assert sketch(library, "selftest", tmp_path, raw) == ["right"]
    broken = Path(shutil.copytree(library, tmp_path / "broken"))
    text = (broken / "main.c").read_text()
    (broken / "main.c").write_text(re.sub(r"(expected\[.*?\] = \{\s*)(-?\d+)", r"\1 1 - \2", text))
    assert sketch(broken, "selftest", tmp_path, raw) == ["WRONG"]


def test_arduino_properties_have_every_field_in_one_line_each(library: Path) -> None:
    lines = (library / "library.properties").read_text().splitlines()
    fields = dict(line.split("=", 1) for line in lines)
    required = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url"}
    assert fields.keys() == required | {"architectures", "includes"} and all(fields.values())
    assert re.fullmatch(r"[A-Za-z0-9][\w .-]*", fields["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", fields["version"])
    assert fields["sentence"].endswith("50 samples of 3 channels at 50 Hz to 5 classes.")
    assert (library / fields["includes"]).is_file()
    assert not (library / "src").exists()  # with one, Arduino would compile that folder alone


def test_the_platformio_library_builds_what_it_names(library: Path, tmp_path: Path) -> None:
    manifest = json.loads((library / "library.json").read_text())
    build = manifest["build"]
    root = library / build["srcDir"]
    assert build["srcFilter"][0] == "-<*>"
    patterns = [entry[2:-1] for entry in build["srcFilter"][1:] if entry.startswith("+<")]
    sources = sorted({path for pattern in patterns for path in root.glob(pattern)})
    assert [path.name for path in sources] == ["main.c", *SOURCES]
    (tmp_path / "app.c").write_text(CALLER)
    (header,) = (root / build["includeDir"]).glob(manifest["headers"])
    flags = ("-std=c99", "-Wall", "-Wextra", "-Werror", *build["flags"], f"-I{header.parent}")
    run(*find_compiler(), *flags, "app.c", *sources, "-o", "app", cwd=tmp_path)
    run(tmp_path / "app", cwd=tmp_path)


def module_options(library: Path) -> tuple[Path, str]:
    """The folder of the module's CMakeLists.txt, and its Kconfig, as `module.yml` names them."""
    module = yaml.safe_load((library / "zephyr" / "module.yml").read_text())
    assert module["name"] == "topokd_student"
    return library / module["build"]["cmake"], (library / module["build"]["kconfig"]).read_text()


def test_the_zephyr_module_asks_only_for_options_it_defines(library: Path) -> None:
    folder, kconfig = module_options(library)
    defined = set(re.findall(r"^config (\w+)$", kconfig, re.MULTILINE))
    used = set(re.findall(r"CONFIG_(\w+)", (folder / "CMakeLists.txt").read_text()))
    assert used == defined == {"TOPOKD_STUDENT", "TOPOKD_STUDENT_SELF_TEST"}


@pytest.mark.parametrize("on", [True, False])
def test_the_zephyr_module_builds_when_it_is_chosen(library: Path, tmp_path: Path, on: bool) -> None:
    folder, kconfig = module_options(library)
    names = re.findall(r"^config (\w+)$", kconfig, re.MULTILINE) if on else []
    options = "\n".join(f"set(CONFIG_{name} y)" for name in names)
    (tmp_path / "CMakeLists.txt").write_text(ZEPHYR.format(options=options, module=folder))
    (tmp_path / "app.c").write_text(CALLER if on else "int main(void) { return 0; }\n")
    run(CMAKE, "-S", ".", "-B", "build", cwd=tmp_path)
    assert (tmp_path / "build" / "module" / "CMakeFiles" / "topokd_student.dir").is_dir() is on
    if on:
        run(CMAKE, "--build", "build", cwd=tmp_path)
        run(tmp_path / "build" / "app", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not all(map(shutil.which, ("g++", "javac"))), reason="needs g++ and a JDK")
def test_the_android_code_of_the_documentation_runs_in_java(library: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "embedding.md").read_text("utf-8")
    for name, kind in (("CMakeLists.txt", "cmake"), ("student_jni.cpp", "cpp")):
        (text,) = re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)
        (tmp_path / name).write_text(text)
    shutil.copytree(library, tmp_path / "c")
    jdk = Path(shutil.which("javac") or "").resolve().parents[1] / "include"
    flags = f"-DCMAKE_CXX_FLAGS=-I{jdk} -I{jdk / 'linux'} -Wall -Wextra -Werror"
    run(CMAKE, "-S", ".", "-B", "build", flags, cwd=tmp_path)
    run(CMAKE, "--build", "build", cwd=tmp_path)
    levels, raw = stream()
    (tmp_path / "raw.txt").write_text("\n".join(" ".join(map(repr, row)) for row in raw.tolist()))
    (tmp_path / "com" / "example").mkdir(parents=True)
    (tmp_path / "com" / "example" / "Student.java").write_text(JAVA)
    run("javac", "com/example/Student.java", cwd=tmp_path)
    printed = run("java", "-Djava.library.path=build", "com.example.Student", cwd=tmp_path).split()
    starts = range(0, len(levels) - LENGTH + 1, (LENGTH + 1) // 2)
    labels = tflm_logits(int8_file(), np.array([levels[at : at + LENGTH] for at in starts])).argmax(axis=1)
    assert [int(word) for word in printed] == labels.tolist()


def test_every_layout_file_is_filled_in(library: Path) -> None:
    for path in LAYOUTS:
        text = (library / path).read_text()
        assert text.endswith("\n") and not re.search(r"@\w+@", text), path
