"""The deploy form computes what the torch model computes, at every layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from export_cases import SPEC, noise, random_student, torch_logits
from topokd_export.deploy import ADD, CONV, PAD, SCALE, DeployGraph, deploy_form
from topokd_export.parity import layer_differences

from topokd_edge.errors import BadInputError, UsageError
from topokd_edge.models.wrn import WRNSpec

CASES = [
    pytest.param(WRNSpec(1, 16, 1, 3, 14), (500,), id="3x500"),
    pytest.param(WRNSpec(1, 16, 1, 16, 14), (16,), id="equal axes 16x16"),
    pytest.param(WRNSpec(1, 16, 1, 40, 12), (101,), id="odd length"),
    pytest.param(WRNSpec(1, 10, 2, 3, 5, stem_stride=2), (33,), id="wide, stem stride 2"),
    pytest.param(WRNSpec(1, 10, 1, 2, 2), (1,), id="one sample"),
    pytest.param(WRNSpec(2, 10, 1, 3, 5), (12, 9), id="image teacher"),
    pytest.param(WRNSpec(1, 16, 1, 3, 5, activation="post"), (101,), id="post-activation"),
    pytest.param(WRNSpec(2, 10, 2, 3, 5, activation="post"), (12, 9), id="post-activation, image"),
]


@pytest.mark.parametrize(("spec", "size"), CASES)
def test_every_layer_equals_torch(spec: WRNSpec, size: tuple[int, ...]) -> None:
    model = random_student(spec)
    graph = deploy_form(model, size)
    differences = layer_differences(model, graph, noise(3, spec, size))
    assert len(differences) == sum(op.kind not in (PAD, "mean") for op in graph.ops)
    assert max(differences.values()) < 1e-4, differences


def test_a_swapped_axis_or_a_wrong_padding_is_seen() -> None:
    spec = WRNSpec(1, 16, 1, 16, 14)
    model = random_student(spec)
    graph = deploy_form(model, (16,))
    x = noise(1, spec, (16,))
    assert max(layer_differences(model, graph, x.transpose(0, 2, 1)).values()) < 1e-4
    swapped = _with(graph, "stem", weight=graph.ops[0].weight.transpose(2, 1, 0))
    assert layer_differences(model, swapped, x)["stem"] > 0.1
    same_padding = _with(
        graph, "blocks.2.conv1", weight=np.roll(_op(graph, "blocks.2.conv1").weight, 1, axis=1)
    )
    assert layer_differences(model, same_padding, x)["blocks.2.conv1"] > 0.1


def test_the_graph_is_what_the_design_says() -> None:
    graph = deploy_form(random_student(), (50,))
    kinds = [op.kind for op in graph.ops]
    assert (kinds.count(CONV), kinds.count(SCALE), kinds.count(ADD), kinds.count(PAD)) == (15, 7, 6, 2)
    assert [op.name for op in graph.ops if op.stride == 2] == [
        "blocks.2.conv1",
        "blocks.2.shortcut",
        "blocks.4.conv1",
        "blocks.4.shortcut",
    ]


def test_with_activation_after_the_sum_nothing_is_left_to_scale() -> None:
    graph = deploy_form(random_student(WRNSpec(1, 16, 1, 3, 5, activation="post")), (50,))
    kinds = [op.kind for op in graph.ops]
    assert (kinds.count(CONV), kinds.count(ADD), kinds.count(PAD)) == (15, 6, 2)
    assert len(kinds) == 25
    assert SCALE not in kinds


def test_dead_channels_get_one_small_weight_and_nothing_else_changes() -> None:
    model = random_student()
    with torch.no_grad():
        for norm in (model.blocks[1].bn2, model.blocks[1].bn1):
            norm.weight[3] = 1e-12
            norm.bias[3] = 2.0
    graph = deploy_form(model, (50,))
    floored = graph.with_floored_weights()
    for name in ("blocks.1.conv1", "blocks.1.bn1"):
        before, after = _op(graph, name), _op(floored, name)
        assert np.abs(before.weight[3]).max() < 1e-9
        assert np.count_nonzero(before.weight != after.weight) == 1
        range_of = np.abs(after.weight.reshape(len(after.bias), -1)).max(axis=1)
        assert range_of.min() >= 0.99e-4 * range_of.max()
        # An int8 layer's bias is stored as bias / (input scale * weight scale) in 32 bits.
        assert (np.abs(after.bias) / (range_of / 127 * (0.2 / 255))).max() < 2**31
    x = noise(4)
    changed = [graph.evaluate(w)["head"] - floored.evaluate(w)["head"] for w in x]
    assert np.abs(changed).max() < 5e-3 * np.ptp(torch_logits(model, x))


def test_a_graph_without_dead_channels_is_left_alone() -> None:
    graph = deploy_form(random_student(), (50,))
    for before, after in zip(graph.ops, graph.with_floored_weights().ops, strict=True):
        assert before.weight is None or np.array_equal(before.weight, after.weight)


def test_wrong_size_and_broken_weights_are_refused() -> None:
    with pytest.raises(UsageError, match="2 dimensions"):
        deploy_form(random_student(WRNSpec(2, 10, 1, 3, 5)), (50,))
    model = random_student()
    with torch.no_grad():
        model.blocks[2].conv1.weight[0, 0, 0] = float("nan")
    with pytest.raises(BadInputError, match=r"blocks\.2\.conv1"):
        deploy_form(model, (50,))
    with pytest.raises(BadInputError, match=r"\(50, 3\).*\(3, 50\)"):
        deploy_form(random_student(), (50,)).evaluate(noise(1, SPEC)[0].T)


def _op(graph: DeployGraph, name: str):
    return next(op for op in graph.ops if op.name == name)


def _with(graph: DeployGraph, name: str, **changes) -> DeployGraph:
    return replace(graph, ops=tuple(replace(op, **changes) if op.name == name else op for op in graph.ops))
