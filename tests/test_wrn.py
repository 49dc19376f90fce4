"""Parameter and MAC counts equal those of the published code, for every row of its table."""

import weakref

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from topokd_edge.errors import UsageError
from topokd_edge.models.wrn import WideResNet, WRNSpec, count

# Parameters and MACs (three or four digits) counted from the two-teacher code of the method's authors.
# (depth, width): one pair per entry of INPUTS.
TABLE = {
    (16, 1): ((63_020, 2.19e6), (61_374, 10.06e6), (180_524, 128.5e6), (175_326, 106.6e6)),
    (16, 2): ((241_836, 8.08e6), (240_318, 39.5e6), (697_260, 426e6), (692_190, 404e6)),
    (16, 3): ((537_644, 17.78e6), (536_254, 88.0e6), (1_555_244, 914e6), (1_550_302, 892e6)),
    (16, 8): ((3_775_404, 123.9e6), (3_774_654, 618.6e6), (10_967_724, 6.21e9), (10_963_422, 6.19e9)),
    (28, 1): ((128_428, 4.34e6), (126_782, 20.8e6), (374_956, 241.7e6), (369_758, 219.9e6)),
    (28, 3): ((1_120_940, 37.1e6), (1_119_550, 184.8e6), (3_299_756, 1.93e9), (3_294_814, 1.91e9)),
}
INPUTS = ((1, 40, (100,), 12), (1, 3, (500,), 14), (2, 40, (64, 64), 12), (2, 3, (64, 64), 14))


@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("net", TABLE)
def test_counts_equal_the_published_code(net: tuple[int, int], column: int) -> None:
    dims, channels, size, classes = INPUTS[column]
    params, macs = count(WRNSpec(dims, *net, in_channels=channels, classes=classes), size)
    expected_params, expected_macs = TABLE[net][column]
    assert params == expected_params
    assert macs == pytest.approx(expected_macs, rel=3e-3)


def test_macs_of_one_convolution_by_hand() -> None:
    # Stem alone: 3 taps * 5 channels * 16 outputs * 10 samples; the rest is summed from the architecture.
    spec = WRNSpec(1, 10, 1, in_channels=5, classes=2)
    stem = 3 * 5 * 16 * 10
    stage1 = 2 * 3 * 16 * 16 * 10
    stage2 = (3 * 16 * 32 + 3 * 32 * 32 + 16 * 32) * 5
    stage3 = (3 * 32 * 64 + 3 * 64 * 64 + 32 * 64) * 3
    assert count(spec, (10,))[1] == stem + stage1 + stage2 + stage3 + 64 * 2


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("stem_stride", [1, 2])
def test_counts_describe_the_real_module(dims: int, stem_stride: int) -> None:
    spec = WRNSpec(dims, 16, 2, in_channels=6, classes=5, stem_stride=stem_stride)
    model = WideResNet(spec)
    assert sum(p.numel() for p in model.parameters()) == count(spec, (32,) * dims)[0]
    assert model(torch.randn(3, 6, *(32,) * dims)).shape == (3, 5)


def plainly(state: dict[str, Tensor], spec: WRNSpec, x: Tensor) -> Tensor:
    """The published forward pass, written out with `F.conv1d` or `F.conv2d` on contiguous tensors."""
    conv = F.conv1d if spec.dims == 1 else F.conv2d

    def norm(x: Tensor, name: str) -> Tensor:
        part = [state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(x, part[0].clone(), part[1].clone(), *part[2:], training=True))

    x = conv(x, state["stem.weight"], stride=spec.stem_stride, padding=1)
    if spec.activation == "post":
        x = plain_post_blocks(state, spec, x)
        return F.linear(x.flatten(2).mean(2), state["head.weight"], state["head.bias"])
    for index in range(3 * spec.blocks_per_stage):
        name, first = f"blocks.{index}", index in (spec.blocks_per_stage, 2 * spec.blocks_per_stage)
        stride, a = 2 if first else 1, norm(x, f"{name}.bn1")
        if f"{name}.shortcut.weight" in state:
            x = conv(a, state[f"{name}.shortcut.weight"], stride=stride)
        a = norm(conv(a, state[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn2")
        x = conv(a, state[f"{name}.conv2.weight"], padding=1) + x
    return F.linear(norm(x, "bn").flatten(2).mean(2), state["head.weight"], state["head.bias"])


def plain_post_blocks(state: dict[str, Tensor], spec: WRNSpec, x: Tensor) -> Tensor:
    """The blocks of "Deep Residual Learning for Image Recognition", figure 2, with projections (B)."""
    conv = F.conv1d if spec.dims == 1 else F.conv2d

    def norm(x: Tensor, name: str) -> Tensor:
        part = [state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, part[0].clone(), part[1].clone(), *part[2:], training=True)

    x = norm(x, "stem_bn").relu()
    for index in range(3 * spec.blocks_per_stage):
        name, first = f"blocks.{index}", index in (spec.blocks_per_stage, 2 * spec.blocks_per_stage)
        stride, kept = 2 if first else 1, x
        if f"{name}.shortcut.weight" in state:
            kept = norm(conv(x, state[f"{name}.shortcut.weight"], stride=stride), f"{name}.shortcut_bn")
        a = norm(conv(x, state[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1").relu()
        x = (norm(conv(a, state[f"{name}.conv2.weight"], padding=1), f"{name}.bn2") + kept).relu()
    return x


@pytest.mark.parametrize("activation", ["pre", "post"])
@pytest.mark.parametrize(
    ("dims", "width", "stem_stride", "size"),
    [(1, 1, 1, (37,)), (1, 2, 2, (125,)), (2, 1, 2, (16, 12)), (2, 2, 1, (9, 9))],
)
def test_it_computes_what_the_plain_network_computes(
    dims: int, width: int, stem_stride: int, size: tuple[int, ...], activation: str
) -> None:
    spec = WRNSpec(dims, 16, width, 3, 5, stem_stride=stem_stride, activation=activation)
    torch.manual_seed(0)
    model = WideResNet(spec).double()
    x = torch.randn(6, 3, *size, dtype=torch.float64)
    weight = torch.randn(6, 5, dtype=torch.float64)
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    leaves = {name: state[name].requires_grad_() for name, _ in model.named_parameters()}
    expected, answer = plainly(state, spec, x), model(x)
    torch.testing.assert_close(answer, expected, rtol=1e-10, atol=1e-10)
    (weight * expected).sum().backward()
    (weight * answer).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.shape == leaves[name].shape
        torch.testing.assert_close(parameter.grad, leaves[name].grad, rtol=1e-8, atol=1e-8, msg=name)


def test_weights_of_signals_are_those_of_conv1d() -> None:
    # As in checkpoints of all versions: (out, in, taps), under names without a trace of rows.
    state = WideResNet(WRNSpec(1, 16, 1, in_channels=3, classes=2)).state_dict()
    assert state["stem.weight"].shape == (16, 3, 3)
    assert state["blocks.2.shortcut.weight"].shape == (32, 16, 1)
    assert all(value.ndim == 3 for key, value in state.items() if "conv" in key)


def test_every_problem_of_a_description_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        WRNSpec(3, 17, 0, in_channels=1, classes=1, activation="none")
    assert [p.split(" ")[0] for p in caught.value.problems] == ["dims", "depth", "activation", "width"]


def test_the_twin_has_other_norms_and_the_same_products() -> None:
    pre, post = (WRNSpec(1, 16, 1, 3, 14, activation=each) for each in ("pre", "post"))
    assert (pre.name, post.name) == ("WRN16-1 (1-D)", "WRN16-1 (1-D, post-activation)")
    # Two numbers a channel. Before: of what each convolution reads, and of the last sum. Behind: of what each
    # writes, the stem and two shortcuts as well.
    before = 2 * (16 * 3 + 32 * 2 + 64 + 64) + 2 * (2 * 16 + 2 * 32 + 2 * 64)
    behind = 2 * (16 + 32 + 64) + 2 * 2 * (2 * 16 + 2 * 32 + 2 * 64)
    params, macs = count(pre, (500,))
    assert count(post, (500,)) == (params + behind - before, macs)


def test_the_twins_differ_in_what_they_were_trained_as() -> None:
    state = WideResNet(WRNSpec(1, 10, 1, 2, 3)).state_dict()
    with pytest.raises(RuntimeError, match="stem_bn"):
        WideResNet(WRNSpec(1, 10, 1, 2, 3, activation="post")).load_state_dict(state)


@pytest.mark.parametrize("depth", [10, 16, 28])
def test_observed_stages_are_the_last_blocks_of_each(depth: int) -> None:
    activation = "post" if depth == 16 else "pre"
    model = WideResNet(WRNSpec(1, depth, 1, in_channels=2, classes=3, activation=activation)).eval()
    x = torch.randn(4, 2, 32)
    hooked: list[torch.Tensor] = []
    per_stage = (depth - 4) // 6
    for block in list(model.blocks)[per_stage - 1 :: per_stage]:
        block.register_forward_hook(lambda _, args, output: hooked.append(output))
    logits, seen = model.observe(x, lambda features: features)
    assert torch.equal(logits, model(x))
    assert [features.shape[1] for features in seen] == [16, 32, 64]
    for one, other in zip(seen, hooked[:3], strict=True):
        assert one is other


def test_what_is_observed_is_not_kept() -> None:
    model = WideResNet(WRNSpec(1, 16, 1, in_channels=2, classes=3)).eval()
    alive: list[weakref.ref[torch.Tensor]] = []
    living: list[int] = []

    def look(features: torch.Tensor) -> float:
        living.append(sum(reference() is not None for reference in alive))
        alive.append(weakref.ref(features))
        return features.sum().item()

    with torch.no_grad():
        model.observe(torch.randn(4, 2, 32), look)
    assert living == [0, 0, 0]
