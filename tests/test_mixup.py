"""Mixup: how many samples are mixed, how much, and that signal, image and target are mixed alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topokd_edge.distill.mixup import Mix, draw_mix

CPU = torch.device("cpu")


def draw(batch: int, alpha: float, share: float = 1.0, seed: int = 0) -> Mix:
    return draw_mix(batch, alpha, share, np.random.default_rng(seed), CPU)


@given(
    batch=st.integers(2, 200),
    share=st.floats(0, 1),
    alpha=st.floats(0.5, 10),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=100)
def test_the_share_is_exact(batch: int, share: float, alpha: float, seed: int) -> None:
    # With alpha of 0.5 and more, a coefficient that rounds to 1 has probability below 1e-3.
    mix = draw(batch, alpha, share, seed)
    rounded_to_one = round(share * batch) - len(mix.mixed)
    assert 0 <= rounded_to_one <= 1
    assert len(set(mix.mixed.tolist())) == len(mix.mixed)
    assert sorted(mix.partner.tolist()) == list(range(batch))
    assert ((mix.keep >= 0) & (mix.keep <= 1)).all()
    unmixed = torch.ones(batch, dtype=torch.bool)
    unmixed[mix.mixed] = False
    assert (mix.keep[unmixed] == 1).all()


@given(batch=st.integers(2, 100), share=st.floats(0, 1), alpha=st.floats(1e-3, 0.5), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=50)
def test_never_more_than_the_share_however_weak(batch: int, share: float, alpha: float, seed: int) -> None:
    mix = draw(batch, alpha, share, seed)
    assert len(mix.mixed) <= round(share * batch)
    assert torch.isfinite(mix.keep).all()


def test_every_sample_is_mixed_as_often_as_any_other() -> None:
    rng = np.random.default_rng(0)
    times = np.zeros(10)
    for _ in range(2000):
        times[draw_mix(10, 1.0, 0.3, rng, CPU).mixed.numpy()] += 1
    # Binomial(2000, 0.3): 600, standard deviation 20.5.
    assert np.abs(times - 600).max() < 5 * 20.5


@pytest.mark.parametrize(("alpha", "expected"), [(0.1, 0.059), (0.2, 0.101), (1.0, 0.250)])
def test_coefficients_follow_beta(alpha: float, expected: float) -> None:
    # Mean of min(k, 1 - k) under Beta(alpha, alpha); 0.25 for the uniform distribution. The other strengths
    # are rounded to three digits; the statistical error of 40,000 draws is at most 0.15 / 200.
    rng = np.random.default_rng(3)
    keep = torch.cat([draw_mix(400, alpha, 1.0, rng, CPU).keep for _ in range(100)])
    assert torch.minimum(keep, 1 - keep).mean().item() == pytest.approx(expected, abs=0.0005 + 4 * 0.15 / 200)
    assert keep.mean().item() == pytest.approx(0.5, abs=4 * 0.5 / 200)


def test_one_draw_mixes_signals_images_and_targets_alike() -> None:
    rng = np.random.default_rng(0)
    signals = torch.from_numpy(rng.normal(size=(12, 3, 20)).astype(np.float32))
    images = torch.from_numpy(rng.normal(size=(12, 3, 8, 8)).astype(np.float32))
    targets = torch.eye(12)
    mix = draw(12, 1.0)
    for x in (signals, images, targets):
        by_hand = [
            float(k) * x[i].double() + (1 - float(k)) * x[j].double()
            for i, (j, k) in enumerate(zip(mix.partner.tolist(), mix.keep, strict=True))
        ]
        np.testing.assert_allclose(mix(x).numpy(), torch.stack(by_hand).numpy(), atol=1e-6)
    np.testing.assert_allclose(mix(targets).sum(1).numpy(), np.ones(12), atol=1e-6)


@pytest.mark.parametrize(("alpha", "share"), [(0.0, 1.0), (1.0, 0.0)])
def test_without_mixup_the_batch_stays_as_it_is(alpha: float, share: float) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(0, 1e4, (64, 3, 5)).astype(np.float32))
    mix = draw(64, alpha, share)
    assert len(mix.mixed) == 0
    assert torch.equal(mix(x), x)


def test_samples_that_are_not_mixed_stay_as_they_are() -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(0, 1e4, (64, 3, 5)).astype(np.float32))
    mix = draw(64, 1.0, 0.5)
    rest = [i for i in range(64) if i not in mix.mixed.tolist()]
    assert len(rest) == 32
    assert torch.equal(mix(x)[rest], x[rest])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_rows_are_the_mixed_part_of_the_whole(dtype: torch.dtype, share: float) -> None:
    whole = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 2, 6, 6))).to(dtype)
    batch = torch.tensor([41, 3, 3, 17, 29, 0, 8, 49, 11, 22])
    mix = draw(10, 1.0, share)
    rows = mix.rows(whole, batch)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, mix(whole[batch].float())[mix.mixed])


def test_the_same_seed_gives_the_same_draw() -> None:
    one, same, other = draw(32, 0.2, seed=5), draw(32, 0.2, seed=5), draw(32, 0.2, seed=6)
    assert torch.equal(one.partner, same.partner)
    assert torch.equal(one.keep, same.keep)
    assert not torch.equal(one.partner, other.partner)


@pytest.mark.parametrize(("share", "expected"), [(0.1, 0.407), (0.5, 0.604), (0.9, 0.910)])
def test_the_published_draw_mixes_more_than_the_share(share: float, expected: float) -> None:
    # (1 - 1/64)^floor(64 (1 - share)): each of the draws with replacement misses a sample with 1 - 1/64.
    rng = np.random.default_rng(0)
    counts = [len(draw_mix(64, 5.0, share, rng, CPU, draw="published").mixed) for _ in range(2000)]
    by_hand = (1 - 1 / 64) ** int(64 * (1 - share))
    assert by_hand == pytest.approx(expected, abs=1e-3 if share < 0.9 else 5e-3)
    # At most 8 samples of 64 stray by one standard deviation in a draw: 0.125 / sqrt(2000) = 0.0028.
    assert np.mean(counts) / 64 == pytest.approx(by_hand, abs=4 * 0.0028)


@pytest.mark.parametrize(("share", "mixed"), [(0.0, 0), (1.0, 64)])
def test_the_published_draw_can_spare_nobody(share: float, mixed: int) -> None:
    counts = len(draw_mix(64, 5.0, share, np.random.default_rng(0), CPU, draw="published").mixed)
    assert counts == mixed if share == 1 else counts < 32


def test_two_permutations_are_one() -> None:
    # MIX-KD mixes x[p] with x[q], p and q drawn independently. Seen from the sample, its partner is q o p^-1:
    # as often any other as with one permutation.
    rng = np.random.default_rng(0)
    one, two = np.zeros((2, 5, 5))
    for _ in range(20_000):
        one[np.arange(5), rng.permutation(5)] += 1
        p, q = rng.permutation(5), rng.permutation(5)
        two[p, q] += 1
    for counts in (one, two):  # each pair: binomial(20000, 1/5), standard deviation 57
        assert np.abs(counts - 4000).max() < 5 * 57
