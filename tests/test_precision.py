"""bfloat16 while learning: features alone, near float32, resumable to the bit, and not where it is slow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_training import SUBSET, TRAINING, distill_task, interrupt_at, label_task, network, problem
from torch import nn

from topokd_edge.distill import precision
from topokd_edge.distill.checkpoint import META, WEIGHTS, load_model
from topokd_edge.distill.parts import Training
from topokd_edge.distill.precision import fast_bfloat16, usable
from topokd_edge.distill.trainer import METRICS, predict, train

CPU = torch.device("cpu")
LOW = Training(epochs=3, batch_size=8, learning_rate=0.05, precision="bfloat16")


@pytest.fixture(autouse=True)
def _a_cpu_with_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("flags\t\t: fpu avx512f avx512_bf16\n")
    monkeypatch.setattr(precision, "_CPU_INFO", info)


@pytest.mark.parametrize(
    ("flags", "fast"),
    [
        ("fpu avx2 fma", False),
        ("avx512f avx512bw", False),  # does it, but by way of float32
        ("avx512f avx512_bf16", True),
        ("avx512f amx_tile amx_bf16 amx_int8", True),
        ("avx512_bf16_of_the_future", False),
    ],
)
def test_which_processors_are_fast(
    flags: str, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "info").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: swapgs\n")
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "info")
    assert fast_bfloat16(CPU) is fast
    assert usable("bfloat16", CPU) == ("bfloat16" if fast else "float32")
    assert usable("float32", CPU) == "float32"


def test_a_system_that_does_not_tell_computes_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "absent")
    assert usable("bfloat16", CPU) == "float32"


@pytest.mark.parametrize("dims", [1, 2])
def test_features_alone_are_lowered_and_only_while_learning(dims: int) -> None:
    model = network(dims=dims)
    model.low_precision = True
    kinds: dict[str, torch.dtype] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            module.register_forward_hook(
                lambda _, args, out, name=name: kinds.update({name: out.dtype})  # type: ignore[misc]
            )
    x = torch.randn(8, 2, *(16,) * dims)
    logits = model.train()(x)
    assert kinds.pop("head") == logits.dtype == torch.float32
    assert {*kinds.values()} == {torch.bfloat16}
    logits.sum().backward()
    tensors = [*model.parameters(), *(weight.grad for weight in model.parameters())]
    assert {tensor.dtype for tensor in tensors if tensor is not None} == {torch.float32}
    assert {value.dtype for value in model.bn.state_dict().values()} == {torch.float32, torch.int64}
    model.eval()(x)
    assert {*kinds.values()} == {torch.float32}


@pytest.mark.parametrize("dims", [1, 2])
def test_logits_and_gradients_are_near_those_of_float32(dims: int) -> None:
    # bfloat16 has 8 bits: each feature is off by up to 2^-9 of its size.
    torch.manual_seed(0)
    x, found = torch.randn(32, 2, *(16,) * dims), {}
    for low in (False, True):
        model = network(dims=dims).train()
        model.low_precision = low
        logits = model(x)
        logits.square().sum().backward()
        gradient = torch.cat([weight.grad.flatten() for weight in model.parameters()])  # type: ignore[union-attr]
        found[low] = logits.detach(), gradient
    for exact, lowered in zip(found[False], found[True], strict=True):
        error = ((lowered - exact).norm() / exact.norm()).item()
        assert 1e-5 < error < 0.05


def test_maps_of_lowered_features_are_float32() -> None:
    model = network().train()
    model.low_precision = True
    task = distill_task(model, similarity=1.0)
    losses = task.losses(torch.arange(8), np.random.default_rng(0))
    assert {value.dtype for value in losses.values()} == {torch.float32}
    assert torch.isfinite(losses["similarity"])


def files(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in (WEIGHTS, META)]


def test_a_training_in_bfloat16_is_another_one_that_learns_as_well(tmp_path: Path) -> None:
    x, _, y = problem()
    for name, asked in (("low", "bfloat16"), ("full", "float32")):
        settings = Training(epochs=8, batch_size=8, learning_rate=0.1, precision=asked)  # type: ignore[arg-type]
        model = train(label_task(), SUBSET, settings, seed=7, folder=tmp_path / name, meta={})
        right = predict(model, x, SUBSET.validation).argmax(1) == y[SUBSET.validation]
        assert right.float().mean() >= 0.85
        assert json.loads((tmp_path / name / META).read_text())["precision"] == asked
    assert files(tmp_path / "low") != files(tmp_path / "full")
    stored, _ = load_model(tmp_path / "low")
    assert {value.dtype for value in stored.state_dict().values()} == {torch.float32, torch.int64}
    rows = [json.loads(line) for line in (tmp_path / "low" / METRICS).read_text().splitlines()]
    assert max(row["validation_accuracy"] for row in rows) == pytest.approx(
        (predict(stored, x, SUBSET.validation).argmax(1) == y[SUBSET.validation]).float().mean().item()
    )


def test_interrupted_and_resumed_it_ends_in_the_same_bits(tmp_path: Path) -> None:
    train(label_task(), SUBSET, LOW, seed=7, folder=tmp_path / "whole", meta={})
    with pytest.raises(KeyboardInterrupt):
        train(label_task(), SUBSET, LOW, seed=7, folder=tmp_path / "cut", meta={}, progress=interrupt_at(2))
    train(label_task(), SUBSET, LOW, seed=7, folder=tmp_path / "cut", meta={})
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_without_fast_bfloat16_the_training_is_that_of_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "absent")
    train(label_task(), SUBSET, LOW, seed=7, folder=tmp_path / "low", meta={})
    train(label_task(), SUBSET, TRAINING, seed=7, folder=tmp_path / "full", meta={})
    assert files(tmp_path / "low") == files(tmp_path / "full")
