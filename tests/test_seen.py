"""Networks of a step are shown the same virtual windows; the student sees its own channels of them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from made_recordings import windows_of
from made_training import interrupt_at
from topokd_export.export import export_student
from torch import Tensor, nn

from topokd_edge.bundle import Bundle, Normalisation, open_model
from topokd_edge.data.sensors import sensors
from topokd_edge.data.windowset import WindowSet
from topokd_edge.distill.augment import Augment
from topokd_edge.distill.checkpoint import load_model
from topokd_edge.distill.method import Distilling
from topokd_edge.distill.mixup import draw_mix
from topokd_edge.distill.parts import Augmentation, Training
from topokd_edge.distill.recipe import Recipe, parse_recipe
from topokd_edge.distill.run_training import continue_run, start_run, train_run
from topokd_edge.distill.seen import Redraw, Seen, seen_in
from topokd_edge.distill.tasks import DistillTask, LabelTask
from topokd_edge.distill.teacher import Teacher
from topokd_edge.errors import UsageError
from topokd_edge.models.wrn import WideResNet, WRNSpec
from topokd_edge.run import DISTILLED_STUDENT, SCRATCH_STUDENT, SIGNAL_TEACHER, TRAINED, FoldRun, Run
from topokd_edge.topology.image import persistence_images
from topokd_edge.topology.params import fit_params

PLACES = ("torso", "arm", "leg")
CHANNELS = tuple(f"{place}_{kind}_{axis}" for place in PLACES for kind in ("acc", "gyro") for axis in "xyz")
UNITS = ("g", "g", "g", "deg/s", "deg/s", "deg/s") * 3
ARM = tuple(name for name in CHANNELS if name.startswith("arm"))
LENGTH, SUBJECTS, EACH = 24, 4, 36
RECIPE = """
name = "privileged"
split = { folds = 2, validation_subjects = 1 }
normalisation = "sensor"
topology = { size = [8, 8], sigma = 0.1 }
augmentation = { rotation = 0.3, scale = 0.1, shift = 0.1, jitter = 0.05, drop = 0.1, images = "redrawn" }
signal_teacher = { network = { depth = 10 }, training = { epochs = 2, batch_size = 16 } }
topology_teacher = { network = { depth = 10 }, training = { epochs = 1, batch_size = 16 } }

[student]
channels = ["arm_acc_x", "arm_acc_y", "arm_acc_z", "arm_gyro_x", "arm_gyro_y", "arm_gyro_z"]
network = { depth = 10 }
scratch = { epochs = 2, batch_size = 16 }
distilled = { epochs = 2, batch_size = 16, learning_rate = 0.02 }
"""


def recipe(*overrides: str) -> Recipe:
    return parse_recipe(RECIPE, "privileged", overrides)


def windows() -> WindowSet:
    """Four subjects, three classes: waves of three speeds, offset and size differ by channel."""
    rng = np.random.default_rng(0)
    n = SUBJECTS * EACH
    y = np.arange(n) % 3
    phase = rng.uniform(0, 6, (n, len(CHANNELS), 1))
    wave = np.sin(np.arange(LENGTH) * (0.3 + 0.5 * y)[:, None, None] + phase)
    size, offset = rng.uniform(0.5, 3, (2, len(CHANNELS), 1))
    x = (wave + rng.normal(0, 0.2, wave.shape)) * size + offset
    subject = np.repeat(np.arange(1, SUBJECTS + 1), EACH).astype(str)
    return windows_of(x, y, subject, ("run", "sit", "walk"), rate_hz=12.0, channels=CHANNELS, units=UNITS)


# --- one step


class Witness(nn.Module):
    """A network that notes what it is shown, and answers with its head of it."""

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self.spec = WRNSpec(dims=1, depth=10, width=1, in_channels=inputs.shape[1], classes=3)
        self.head = nn.Linear(inputs[0].numel(), 3)
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(x.detach())
        return cast(Tensor, self.head(x.flatten(1)))


SET = windows()
RAW = np.ascontiguousarray(SET.x[:])
SCALE = Normalisation(tuple(RAW.mean((0, 2)).tolist()), tuple(RAW.std((0, 2)).tolist()))
SIGNALS = torch.from_numpy(SCALE.apply(RAW))
PARAMS = fit_params(RAW, size=(8, 8), sigma=0.1)
IMAGE_SCALE = Normalisation((0.1,) * 18, (0.3,) * 18)
IMAGES = torch.from_numpy((persistence_images(RAW, PARAMS)[0] - 0.1) / 0.3)
OWN = [CHANNELS.index(name) for name in ARM]
BATCH = torch.tensor([3, 17, 0, 8, 21, 5, 12, 9])
STRONG = Augmentation(rotation=0.5, scale=0.2, shift=0.2, jitter=0.1, drop=0.2)


def seen(images: str) -> Seen:
    augment = Augment(STRONG, sensors(CHANNELS, UNITS), SCALE)
    return Seen(SIGNALS, augment, Redraw(PARAMS, SCALE, IMAGE_SCALE), images == "clean", OWN)


def test_redrawn_images_of_unchanged_windows_are_those_of_the_set() -> None:
    found = Redraw(PARAMS, SCALE, IMAGE_SCALE)(SIGNALS[BATCH])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, IMAGES[BATCH], atol=1e-4, rtol=0)


def test_redrawn_images_are_those_of_the_raw_changed_window() -> None:
    twice = SCALE.apply(2 * RAW[:4])
    expected = (persistence_images(2 * RAW[:4], PARAMS)[0] - 0.1) / 0.3
    found = Redraw(PARAMS, SCALE, IMAGE_SCALE)(torch.from_numpy(twice)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(found - IMAGES[:4].numpy()).max() > 1


@pytest.mark.parametrize("images", ["clean", "redrawn"])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_student_and_teachers_are_shown_the_same_virtual_windows(images: str, alpha: float) -> None:
    student, signal, topology = Witness(SIGNALS[:, OWN]), Witness(SIGNALS), Witness(IMAGES)
    teachers = {
        "signal": Teacher(cast(WideResNet, signal), SIGNALS, torch.arange(40)),
        "topology": Teacher(cast(WideResNet, topology), IMAGES, torch.arange(40)),
    }
    settings = Distilling(alpha_signal=alpha, alpha_topology=alpha)
    task = DistillTask(
        cast(WideResNet, student),
        SIGNALS[:, OWN],
        torch.from_numpy(SET.y),
        cast(Any, teachers),
        settings,
        seen(images),
    )
    asked = len(topology.shown)
    task.losses(BATCH, np.random.default_rng(4))
    rng = np.random.default_rng(4)
    mix = draw_mix(len(BATCH), alpha, 1.0, rng, BATCH.device)
    changed = seen(images).windows(BATCH, rng)
    assert (changed - SIGNALS[BATCH]).abs().max() > 0.5
    assert torch.equal(signal.shown[-1], mix(changed))
    assert torch.equal(student.shown[-1], mix(changed)[:, OWN])
    if images == "redrawn":
        expected = mix(Redraw(PARAMS, SCALE, IMAGE_SCALE)(changed))
        torch.testing.assert_close(topology.shown[-1], expected)
    elif alpha == 0:
        assert len(topology.shown) == asked  # what it said of the windows as they are, is known
    else:
        mixed = mix(IMAGES[BATCH])[mix.mixed]
        torch.testing.assert_close(topology.shown[-1], mixed)


def test_training_on_labels_sees_fresh_changes_in_every_step() -> None:
    model, shown = Witness(SIGNALS[:, OWN]), seen("clean")
    task = LabelTask(
        cast(WideResNet, model), SIGNALS[:, OWN], torch.from_numpy(SET.y), shown=shown.to_student()
    )
    rng = np.random.default_rng(0)
    task.losses(BATCH, rng)
    task.losses(BATCH, rng)
    first, second = model.shown
    assert (first - second).abs().max() > 0.5
    assert torch.equal(first, shown.windows(BATCH, np.random.default_rng(0))[:, OWN])


def test_who_learns_from_what() -> None:
    clean, redrawn = seen("clean"), seen("redrawn")
    for images in (clean.to_topology_teacher(), redrawn.to_topology_teacher()):
        assert images is not None
        expected = Redraw(PARAMS, SCALE, IMAGE_SCALE)(clean.windows(BATCH, np.random.default_rng(0)))
        assert torch.equal(images(BATCH, np.random.default_rng(0)), expected)
    declined = redrawn.under(Training(epochs=1, augment=False))
    assert declined == replace(redrawn, augment=None)
    assert declined.to_student() is declined.to_signal_teacher() is declined.to_topology_teacher() is None
    assert redrawn.under(Training(epochs=1)) is redrawn


def test_nothing_asked_for_leaves_everything_as_it_is() -> None:
    made = {
        "signal": {"mean": SCALE.mean, "std": SCALE.std},
        "student": {"channels": CHANNELS},
        "sensors": [asdict(sensor) for sensor in sensors(CHANNELS, UNITS)],
    }
    assert seen_in(Augmentation(), SIGNALS, made, CHANNELS) == Seen(SIGNALS)
    assert seen_in(Augmentation(scale=0.1), SIGNALS, made, CHANNELS).redraw is None
    reordered = {**made, "student": {"channels": CHANNELS[::-1]}}
    assert seen_in(Augmentation(), SIGNALS, reordered, CHANNELS).channels == list(range(17, -1, -1))


# --- a whole run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "w"
    SET.save(path)
    return path


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    started = start_run(tmp_path_factory.mktemp("run") / "r", data, recipe())
    train_run(started, recipe(), only_folds=[1], device="cpu")
    return started


def weights(place: FoldRun) -> dict[str, bytes]:
    return {name: (place.model_folder(name) / "checkpoint.safetensors").read_bytes() for name in TRAINED}


def test_the_teachers_have_all_channels_and_the_student_its_own(run: Run) -> None:
    place = run.fold_run(1, 0)
    inputs = {name: load_model(place.model_folder(name))[1]["input"] for name in TRAINED}
    assert inputs == {
        SIGNAL_TEACHER: [18, LENGTH],
        "teacher.topology": [18, 8, 8],
        SCRATCH_STUDENT: [6, LENGTH],
        DISTILLED_STUDENT: [6, LENGTH],
    }
    made = place.preprocessing()
    assert made["student"]["channels"] == list(ARM)
    assert made["student"]["mean"] == made["signal"]["mean"][6:12]
    assert made["student"]["std"] == made["signal"]["std"][6:12]
    assert made["sensors"][3] == {
        "name": "arm_gyro",
        "place": "arm",
        "unit": "deg/s",
        "channels": [9, 10, 11],
    }


def test_the_axes_of_a_sensor_have_one_scale(run: Run) -> None:
    scale = run.fold_run(1, 0).preprocessing()["signal"]
    fit = SET.of_subjects(run.folds[0]["fit"])
    x = np.asarray(SET.x[fit], np.float64)
    np.testing.assert_allclose(scale["mean"], x.mean((0, 2)), rtol=1e-9)
    variances = x.var((0, 2)).reshape(6, 3).mean(1)
    np.testing.assert_allclose(scale["std"], np.repeat(np.sqrt(variances), 3), rtol=1e-9)


@pytest.mark.parametrize("model", [SCRATCH_STUDENT, DISTILLED_STUDENT])
def test_predictions_need_the_channels_of_the_student_only(model: str, run: Run) -> None:
    place = run.fold_run(1, 0)
    scale, found = place.preprocessing()["student"], place.predictions(model)
    x = np.asarray(SET.x[found.window])[:, OWN]
    own = Normalisation(tuple(scale["mean"]), tuple(scale["std"])).apply(x)
    network, _ = load_model(place.model_folder(model))
    with torch.no_grad():
        np.testing.assert_allclose(network(torch.from_numpy(own)).numpy(), found.logits, atol=1e-4)


def test_the_bundle_is_of_the_student(run: Run, tmp_path: Path) -> None:
    export_student(run, 1, 0, tmp_path / "bundle", int8=False)
    bundle, place = Bundle.open(tmp_path / "bundle"), run.fold_run(1, 0)
    assert bundle.manifest.channel_names == ARM
    assert bundle.manifest.units == UNITS[:6]
    found = place.predictions(DISTILLED_STUDENT)
    x = bundle.manifest.normalisation.apply(np.asarray(SET.x[found.window])[:, OWN])
    for target in ("onnx", "tflite"):
        logits = open_model(bundle.model_path(target, "float32")).run(x)
        np.testing.assert_allclose(logits, found.logits, atol=1e-3)


@pytest.mark.parametrize("call", [3, 6, 8])
def test_an_interrupted_run_with_augmentation_ends_in_the_same_weights(
    call: int, run: Run, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r"
    with pytest.raises(KeyboardInterrupt):
        train_run(
            start_run(out, data, recipe()),
            recipe(),
            only_folds=[1],
            device="cpu",
            progress=interrupt_at(call),
        )
    train_run(continue_run(out, data, recipe()), recipe(), only_folds=[1], device="cpu")
    assert weights(Run.open(out).fold_run(1, 0)) == weights(run.fold_run(1, 0))


@pytest.mark.parametrize(
    ("declines", "changed"),
    [
        ("signal_teacher.training.augment=false", {SIGNAL_TEACHER, DISTILLED_STUDENT}),
        ("topology_teacher.training.augment=false", {"teacher.topology", DISTILLED_STUDENT}),
        ("student.scratch.augment=false", {SCRATCH_STUDENT, DISTILLED_STUDENT}),
        ("student.distilled.augment=false", {DISTILLED_STUDENT}),
        ("augmentation.images=clean", {DISTILLED_STUDENT}),
    ],
)
def test_each_training_may_decline(
    declines: str, changed: set[str], run: Run, data: Path, tmp_path: Path
) -> None:
    chosen = recipe(declines)
    other = start_run(tmp_path / "r", data, chosen)
    train_run(other, chosen, only_folds=[1], device="cpu")
    mine, theirs = weights(run.fold_run(1, 0)), weights(other.fold_run(1, 0))
    assert {name for name in TRAINED if mine[name] != theirs[name]} == changed


def test_a_channel_that_is_not_there_is_a_usage_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no channel wrist_x in the window set; it has torso_acc_x"):
        start_run(tmp_path / "r", data, recipe('student.channels=["arm_acc_x", "wrist_x"]'))
    assert list(tmp_path.iterdir()) == []


def test_images_that_take_too_long_are_not_redrawn_in_every_step() -> None:
    with pytest.raises(UsageError) as caught:
        recipe("topology.filtration=delay")
    assert "too slow to redraw" in caught.value.problems[0]
    declined = ("topology_teacher.training.augment=false", "augmentation.images=clean")
    assert recipe("topology.filtration=delay", *declined).augmentation.images == "clean"


def test_channels_in_the_recipe_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="each channel once"):
        recipe('student.channels=["arm_acc_x", "arm_acc_x"]')
    with pytest.raises(UsageError) as caught:
        recipe("student.distilling.annealing_from=signal-teacher")
    assert any("student.channels: expected none" in problem for problem in caught.value.problems)
