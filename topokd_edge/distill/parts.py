"""What sections of a recipe are made of: ranges, a network, a training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from topokd_edge.distill.precision import Precision

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


def _of_wide_resnet(depth: int) -> int:
    if depth < 10 or (depth - 4) % 6:
        raise ValueError("expected 6 N + 4, such as 16 or 28")
    return depth


class Part(BaseModel):
    """A section of a recipe: unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Training(Part):
    """How one network is trained: stochastic gradient descent with momentum."""

    epochs: Count
    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: Positive = 0.1
    """Peak of `one-cycle`, or the first step of `steps`."""
    schedule: Literal["one-cycle", "steps"] = "one-cycle"
    """`steps` is the published one: 1, 0.2, 0.02, 0.002 times the rate from epoch 0, E/18, E/3, 2E/3."""
    momentum: Share = 0.9
    weight_decay: NotNegative = 1e-4
    augment: bool = True
    """Whether the recipe's section `augmentation` applies."""
    precision: Precision = "float32"
    """Of features while learning; float32 is taken on a machine without fast bfloat16."""


class Network(Part):
    """A WideResNet's shape; see `topokd_edge.models.wrn.WRNSpec`."""

    depth: Annotated[int, AfterValidator(_of_wide_resnet)] = 16
    width: Count = 1
    stem_stride: Literal[1, 2] = 1
    activation: Literal["pre", "post"] = "pre"
    """`pre` is the published one; all BatchNorms of `post` fold into convolutions on export."""


class Augmentation(Part):
    """What is done to signals while networks learn; see `topokd_edge.distill.augment`. All 0: nothing."""

    rotation: NotNegative = 0.0
    """Standard deviation in rad of the angle by which three-axis sensors of one place are turned together."""
    scale: NotNegative = 0.0
    """Standard deviation of the logarithm of each sensor's gain: 0.1 is about 10 %."""
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of the window that it may start later or earlier; its edge is mirrored."""
    jitter: NotNegative = 0.0
    """Gaussian noise, in standard deviations of the standardised channel."""
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a sensor is lost from a window and reads its mean; never all that the student has."""
    images: Literal["clean", "redrawn"] = "clean"
    """What the topology teacher is asked about while the student sees an augmented window. `clean`: the image
    of that window as it was, whose answer is known. `redrawn`: the image of the augmented window, made anew
    in every step. While it learns, the topology teacher always sees the latter, unless it declines."""

    def changes(self) -> bool:
        """Return whether anything is asked for."""
        return any((self.rotation, self.scale, self.shift, self.jitter, self.drop))
