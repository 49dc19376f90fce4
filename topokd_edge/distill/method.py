"""How a student is distilled: which teachers, how they are weighed, and what smooths the targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, field_validator

from topokd_edge.distill.parts import NotNegative, Part, Positive, Share

TeacherName = Literal["signal", "topology"]


class Strength(NamedTuple):
    """How strongly a batch is mixed: Beta(alpha, alpha), and the share of samples it is drawn for."""

    alpha: float
    share: float


class Distilling(Part):
    """loss = (1 - tau) CE + tau [w T^2 KL(signal) + (1 - w) T^2 KL(topology)] + similarity MSE(maps).

    The paper's methods: "Base" is both teachers with `annealing = false`, "Ann." with `annealing = true`,
    "Ann.+SP" that with a `similarity` above 0, "KD" one teacher.
    """

    label: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]{0,39}$")] | None = None
    """Short name of these settings; with `student.keep = "all"` the model is called `student.<label>`."""
    teachers: tuple[TeacherName, ...] = ("signal", "topology")
    """Who teaches. A teacher that no candidate needs is not trained; without any, labels alone teach."""
    tau: Share = 0.7
    """Weight of the teachers against the labels."""
    weighting: Literal["fixed", "aver", "ebkd", "ca-mkd"] = "fixed"
    """The weight w of the signal teacher against the topology teacher. `fixed`: eta. `aver`: 1/2. By window:
    `ebkd` trusts the teacher of lower entropy, `ca-mkd` the one nearer the label."""
    eta: Share = 0.7
    """Weight of the signal teacher against the topology teacher, in `fixed` weighting and in the maps."""
    temperature: Positive = 4.0
    kl_reduction: Literal["batchmean", "paper", "ca-mkd"] = "batchmean"
    """`batchmean` is the textbook mean over the batch. As published instead: `paper` also divides by the
    number of classes (torch's default `mean`), `ca-mkd` by the number of teachers (with EBKD and CA-MKD)."""
    logit_standardisation: Literal["none", "tda-kd", "mix-kd"] = "none"
    """As published: all logits are divided by their standard deviation over the classes, in place of T.
    `tda-kd` then doubles those that the teachers are compared by and multiplies by T^2, `mix-kd` does not.
    The scale of such a student's logits means nothing, so nor do its probabilities."""
    annealing: bool = True
    """Start from a trained network and not from random weights."""
    annealing_from: Literal["scratch", "signal-teacher"] = "scratch"
    """Which one: the student trained from scratch, or the signal teacher, if it has the same shape."""
    similarity: NotNegative = 0.0
    """Weight of the similarity-preserving maps; published: 700 for GENEActiv, 3000 for images."""
    alpha_signal: NotNegative = 0.15
    """Beta(alpha, alpha) of the batch that the signal teacher sees; 0 is no mixup."""
    alpha_topology: NotNegative = 0.2
    """The same for the topology teacher; equal alphas share one batch."""
    mixup_share: Share = 1.0
    """Share of each batch that is mixed: 1 is full mixup, less is partial."""
    mixup_share_topology: Share | None = None
    """The same for the topology teacher's batch, where it differs."""
    alpha: Literal["fixed", "adaptive"] = "fixed"
    """`adaptive` sets alphas and shares in every fold, from how confused each trained teacher is by mixed
    windows of the validation subjects; see `topokd_edge.distill.confusion`."""
    confusion_budget: Positive = 0.05
    """Of `adaptive`: mean bits by which a teacher's answers to mixed windows may be off the mixture of its
    clean answers. A teacher that always names the larger part, surely and rightly, has 0.046 with the
    published alpha of 0.15 and 0.057 with that of 0.2."""
    mixup_draw: Literal["exact", "published"] = "exact"
    """`published` draws the samples to leave unmixed with replacement, so more than the share is mixed."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the label that is spread evenly over all classes."""
    input_noise: NotNegative = 0.0
    """Standard deviation of Gaussian noise on the standardised signal that student and signal teacher see."""

    @field_validator("teachers")
    @classmethod
    def _each_once(cls, teachers: tuple[TeacherName, ...]) -> tuple[TeacherName, ...]:
        if len(set(teachers)) < len(teachers):
            raise ValueError("expected each teacher once")
        return teachers

    def strengths(self) -> tuple[Strength, ...]:
        """Return the mixup of each batch of a step, in the order of `teachers`; without any, of the only one.

        Whatever mixes nothing is the same.
        """
        share = self.mixup_share if self.mixup_share_topology is None else self.mixup_share_topology
        by_name = {
            "signal": Strength(self.alpha_signal, self.mixup_share),
            "topology": Strength(self.alpha_topology, share),
        }
        asked = [by_name[name] for name in self.teachers or ("signal",)]
        return tuple(item if item.alpha and item.share else Strength(0.0, 0.0) for item in asked)

    def with_strengths(self, found: Mapping[TeacherName, Strength]) -> Distilling:
        """Return the same with alphas and shares as found for some teachers."""
        change: dict[str, float] = {f"alpha_{name}": item.alpha for name, item in found.items()}
        shares = {"signal": "mixup_share", "topology": "mixup_share_topology"}
        return self.model_copy(update=change | {shares[name]: item.share for name, item in found.items()})

    def needs(self) -> set[TeacherName]:
        """Return the teachers that must be trained for these settings."""
        if self.annealing and self.annealing_from == "signal-teacher":
            return {*self.teachers, "signal"}
        return {*self.teachers}
