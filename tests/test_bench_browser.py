"""A bench in a phone's browser, from this side: what is believed of a post, and what becomes of it."""

from __future__ import annotations

import http.client
import json
import math
import queue
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_cases import VECTORS, read, read_all, small_bundle, sound_post
from topokd_bench.browser.handler import MOST_BYTES
from topokd_bench.browser.post import PostError
from topokd_bench.local import Measured
from topokd_bench.result import BenchResult
from topokd_bench.windows import HeldOut

from topokd_edge.bundle import Bundle
from topokd_edge.cli import _bench_browser, console
from topokd_edge.cli._bench_browser import Where, measure, page_files
from topokd_edge.cli._bench_browser_engines import EnginePlan
from topokd_edge.cli._bench_browser_results import notes, results
from topokd_edge.cli._bench_motion import motion_plan
from topokd_edge.errors import BadInputError, CheckFailedError, DeviceError, TopokdError, UsageError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_bundle(tmp_path_factory.mktemp("browser") / "watch")


# --- the post


def test_a_sound_post_is_read(bundle: Bundle) -> None:
    document = sound_post(bundle, windows=2)
    found = read(document, bundle, windows=2)
    assert [run.build for run in found.builds] == ["simd", "scalar"]
    assert found.builds[0].timing.percentiles_ms() == pytest.approx(
        {"p50": 1.049, "p95": 1.094, "p99": 1.098, "min": 1.0}
    )
    assert found.facts["cores"] == 8 and found.builds[1].predicted.tolist() == [0, 1]


def spoilt(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], bytes]:
    def spoil(document: dict[str, Any]) -> bytes:
        change(document)
        return json.dumps(document).encode()

    return spoil


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda _: b"\xff{}", "no JSON"),
        (lambda _: b"[" * 100_000, "no JSON"),
        (lambda _: b'{"bundle": NaN}', "no JSON"),
        (lambda _: b"9" * 5000, "no JSON"),
        (lambda _: b"[]", "post: expected an object"),
        (spoilt(lambda d: d.update(bundle="0" * 64)), "bundle: another"),
        (spoilt(lambda d: d.update(more=1)), "post: expected an object of"),
        (spoilt(lambda d: d["facts"].update(cores="8")), "facts.cores"),
        (spoilt(lambda d: d["facts"].update(cores=True)), "facts.cores"),
        (spoilt(lambda d: d["facts"].update(user_agent="a\x1b[2J")), "facts.user_agent"),
        (spoilt(lambda d: d["facts"].update(user_agent="a" * 501)), "facts.user_agent"),
        (spoilt(lambda d: d["facts"].pop("screen")), "facts: expected"),
        (spoilt(lambda d: d["builds"].reverse()), "builds: expected"),
        (spoilt(lambda d: d.update(builds=[1, 2])), "builds: expected"),
        (spoilt(lambda d: d.update(builds=[])), "builds: expected"),
        (spoilt(lambda d: d.update(error="broken")), "builds: expected"),
        (spoilt(lambda d: d["builds"][0].update(times_ms=[1.0] * 5)), "builds.simd.times_ms"),
        (spoilt(lambda d: d["builds"][0].update(times_ms=[1.0] * 2001)), "builds.simd.times_ms"),
        (spoilt(lambda d: d["builds"][0].update(times_ms=[-1.0] * 50)), "builds.simd: times"),
        (spoilt(lambda d: d["builds"][0].update(times_ms=["1"] * 50)), "builds.simd.times_ms"),
        (spoilt(lambda d: d["builds"][0].update(times_ms=[True] * 50)), "builds.simd.times_ms"),
        (spoilt(lambda d: d["builds"][1].update(logits=[0.0] * 11)), "builds.scalar.logits"),
        (spoilt(lambda d: d["builds"][1].update(logits=[1e39] * 12)), "builds.scalar.logits"),
        (spoilt(lambda d: d["builds"][1].update(cold_ms=None)), "builds.scalar.cold_ms"),
        (spoilt(lambda d: d["builds"][1].update(windows_per_time=0)), "builds.scalar.windows_per_time"),
        (spoilt(lambda d: d["builds"][1].update(predicted=[3, 0])), "builds.scalar.predicted"),
        (spoilt(lambda d: d["builds"][1].update(predicted=[0.5, 0])), "builds.scalar: times and classes"),
        (spoilt(lambda d: d["builds"][1].update(predicted=[0])), "builds.scalar.predicted"),
    ],
)
def test_a_malformed_post_is_refused_by_name(
    bundle: Bundle, spoil: Callable[[dict[str, Any]], bytes], problem: str
) -> None:
    with pytest.raises(PostError) as caught:
        read(spoil(sound_post(bundle, windows=2)), bundle, windows=2)
    assert any(said.startswith(problem) for said in caught.value.problems), caught.value.problems


def test_all_problems_are_told_at_once(bundle: Bundle) -> None:
    document = sound_post(bundle)
    document["bundle"] = ""
    document["builds"][0]["cold_ms"] = -1
    with pytest.raises(PostError) as caught:
        read(document, bundle)
    assert len(caught.value.problems) == 2


# --- the bench


class Bench:
    """`measure` in a thread, and its address."""

    def __init__(self, bundle: Bundle, held_out: HeldOut | None = None, wait: float = 10.0) -> None:
        self.said: queue.Queue[str] = queue.Queue()
        self.found: list[Measured] | TopokdError | None = None
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(console, "note", self.said.put)
        self._work = (bundle, held_out, 1.0, Where("127.0.0.1", 0, wait), lambda *_: None)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.found = measure(*self._work)
        except TopokdError as error:
            self.found = error

    def __enter__(self) -> Bench:
        self._thread.start()
        host, self.path = self.said.get(timeout=5).removeprefix("open on the phone: http://").split("/", 1)
        self.address = host
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(20)
        self._patch.undo()

    def ask(self, name: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=5)
        kind = {"Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", f"/{self.path}{name}", body, kind)
        try:
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def test_a_post_becomes_results_of_the_one_schema(bundle: Bundle) -> None:
    x = np.arange(150, dtype=np.float32).reshape(5, 3, 10)
    held_out = HeldOut(x, np.array([0, 1, 2, 0, 2]))
    with Bench(bundle, held_out) as bench:
        config = json.loads(bench.ask("config.json")[1])
        samples = np.frombuffer(bench.ask("windows.f32")[1], "<f4")
        assert config["windows"] == 5
        np.testing.assert_array_equal(samples.reshape(5, 10, 3)[:, :, 1], x[:, 1, :])
        assert bench.ask("result", json.dumps(sound_post(bundle, windows=5)).encode())[0] == 200
    assert isinstance(bench.found, list)
    simd, scalar = (item.result for item in bench.found)
    assert (simd.kernel, scalar.kernel) == ("wasm simd", "wasm scalar")
    assert simd.latency_ms is not None and simd.latency_ms["cold"] == 12.5
    assert (simd.basis, simd.runs, simd.accuracy, simd.windows) == ("measured", 300, 0.8, 5)
    assert simd.model_bytes == len(b"content of wasm/student.simd.wasm")
    assert simd.self_test == {"vectors": VECTORS, "layers": 0, "bundle": bundle.digest}
    assert BenchResult.from_dict(json.loads(json.dumps(simd.to_dict()))) == simd
    assert any("mean of 3 windows" in said for said in notes(bench.found))


@pytest.mark.parametrize(
    ("times", "hidden", "said"),
    [
        ([1.0] * 100, False, []),
        ([1.0] * 50 + [1.2] * 50, False, ["last quarter took 1.20 times the first"]),
        ([1.0] * 90 + [5.0] * 10, False, ["p95 is over twice p50"]),
        ([1.0] * 100, True, ["the page was not in front"]),
    ],
)
def test_a_disturbed_run_is_marked_and_told(
    bundle: Bundle, times: list[float], hidden: bool, said: list[str]
) -> None:
    document = sound_post(bundle)
    document["facts"]["hidden_while_timed"] = hidden
    for build in document["builds"]:
        build.update(times_ms=times, windows_per_time=1)
    found = results(bundle, read(document, bundle), None)
    assert [item.result.device["busy"] for item in found] == [bool(said)] * 2
    told = notes(found)
    assert len(told) == 2 * len(said) and all(part in one for part in said for one in told)


def fails(bundle: Bundle, body: bytes) -> TopokdError:
    with Bench(bundle) as bench:
        bench.ask("")
        bench.ask("result", body)
    assert isinstance(bench.found, TopokdError)
    return bench.found


def test_one_wrong_bit_of_the_self_test_is_a_failed_check(bundle: Bundle) -> None:
    document = sound_post(bundle)
    logits = document["builds"][1]["logits"]
    logits[4] = float(np.nextafter(np.float32(logits[4]), np.float32(9)))
    error = fails(bundle, json.dumps(document).encode())
    assert isinstance(error, CheckFailedError) and error.exit_code == 1
    assert error.problems == ("scalar: 1 of 4 self-test windows answered otherwise",)


def test_what_the_browser_could_not_do_is_told(bundle: Bundle) -> None:
    document = {**sound_post(bundle), "builds": [], "error": "no module in a worker"}
    error = fails(bundle, json.dumps(document).encode())
    assert isinstance(error, DeviceError) and "no module in a worker" in error.message


def test_a_malformed_post_ends_the_bench(bundle: Bundle) -> None:
    error = fails(bundle, b'{"bundle": 3}')
    assert isinstance(error, DeviceError) and error.exit_code == 5 and error.problems


def test_an_oversized_post_ends_the_bench_unread(bundle: Bundle) -> None:
    with Bench(bundle) as bench:
        host, port = bench.address.split(":")
        connection = socket.create_connection((host, int(port)), timeout=5)
        connection.sendall(
            f"POST /{bench.path}result HTTP/1.1\r\nHost: {bench.address}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {MOST_BYTES + 1}\r\n\r\n".encode()
        )
        assert read_all(connection).startswith(b"HTTP/1.0 413")
    assert isinstance(bench.found, DeviceError)
    assert f"expected at most {MOST_BYTES}" in bench.found.message


def test_nobody_came_or_with_a_wrong_address_or_without_a_result(bundle: Bundle) -> None:
    said = {}
    for case, path in (("nobody", None), ("wrong", "/old-token/"), ("silent", "")):
        with Bench(bundle, wait=0.4) as bench:
            if path is not None:
                bench.path = path.removeprefix("/") or bench.path
                bench.ask("")
        assert isinstance(bench.found, DeviceError) and bench.found.exit_code == 5
        said[case] = str(bench.found)
    assert "no browser opened the page" in said["nobody"]
    assert "1 requests had a wrong address" in said["wrong"]
    assert "opened and sent no result" in said["silent"]


def test_a_bundle_without_webassembly_is_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="--targets onnx,tflite,wasm"):
        page_files(small_bundle(tmp_path / "b", wasm=False))


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "224.0.0.1", "localhost", "192.168.1.300"])
def test_an_address_that_is_not_one_interface_is_refused(bundle: Bundle, address: str) -> None:
    with pytest.raises(UsageError, match="--address"):
        measure(bundle, None, 1.0, Where(address, 0, 1.0), lambda *_: None)


def test_an_address_of_another_machine_is_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match=r"--address 192\.0\.2\.7: no address of this machine"):
        measure(bundle, None, 1.0, Where("192.0.2.7", 0, 1.0), lambda *_: None)


def test_a_port_in_use_is_wrong_usage(bundle: Bundle) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}: something else listens there") as caught:
            measure(bundle, None, 1.0, Where("127.0.0.1", port, 1.0), lambda *_: None)
    assert caught.value.exit_code == 2


def test_held_out_windows_go_out_only_when_asked_for(bundle: Bundle) -> None:
    config = _bench_browser._made_files(bundle, 1.0, None, EnginePlan())
    assert set(config) == {"config.json"} and json.loads(config["config.json"].content)["windows"] == 0
    with pytest.raises(UsageError, match="--windows 5: the run of this bundle was not found"):
        _bench_browser.run_there(bundle, None, 5, 1.0, Where("127.0.0.1"), lambda *_: None)


# --- motion


def test_channels_come_from_a_phones_axes_in_their_own_units_and_order(bundle: Bundle) -> None:
    manifest = replace(
        bundle.manifest,
        channel_names=("gyro_x", "gyro_y", "gyro_z", "acc_z", "acc_x", "acc_y"),
        units=("rad/s",) * 3 + ("g",) * 3,
    )
    channels = motion_plan(manifest)["channels"]
    assert [item["sensor"] + item["axis"] for item in channels] == [
        "rotationx",
        "rotationy",
        "rotationz",
        "accelerationz",
        "accelerationx",
        "accelerationy",
    ]
    assert channels[0]["factor"] * 180 == pytest.approx(math.pi)
    assert channels[3]["factor"] * 9.80665 == pytest.approx(1.0)
    plain = replace(bundle.manifest, units=("m/s2",) * 3)
    assert {item["factor"] for item in motion_plan(plain)["channels"]} == {1.0}


@pytest.mark.parametrize(
    ("names", "units", "why"),
    [
        ("x y z", "mV g uT", "x \\[mV\\]"),
        ("a_x a_y a_z b_x b_y b_z", "g g g g g g", "2 three-axis accelerometers"),
        (
            "acc_x acc_y acc_z a_x a_y a_z b_x b_y b_z",
            "g g g deg/s deg/s deg/s deg/s deg/s deg/s",
            "2 gyroscopes",
        ),
        ("a_x a_y a_z", "deg/s deg/s deg/s", "0 three-axis accelerometers"),
        ("a_x a_y a_z t", "g g g degC", "t \\[degC\\]"),
        ("lin_acc_x lin_acc_y lin_acc_z", "g g g", "without gravity"),
        ("linacc_x linacc_y linacc_z", "g g g", "without gravity"),
        ("userAcceleration_x userAcceleration_y userAcceleration_z", "g g g", "without gravity"),
        ("m_x m_y m_z", "uT uT uT", "m_x \\[uT\\]"),
    ],
)
def test_a_student_that_a_phone_cannot_feed_says_why(
    bundle: Bundle, names: str, units: str, why: str
) -> None:
    manifest = replace(bundle.manifest, channel_names=tuple(names.split()), units=tuple(units.split()))
    assert re.search(why, motion_plan(manifest)["why"])
