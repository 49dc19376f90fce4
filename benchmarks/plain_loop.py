"""The peer of benchmarks/train_step.py: a training loop as published code of this field writes it.

Written after the structure of TDA_KD (github.com/jeunsom/TDA_KD) and MIX-KD (github.com/hchoi71/MIX-KD): a
`Dataset` that gives one window at a time, a `DataLoader`, teachers asked in every step with autograd on, loss
and accuracy read in every step, mixup drawn by numpy. Everything is computed in float32 by `nn.Conv1d`,
`nn.Conv2d` and `torch.optim.SGD` as they come. Learning rates are those of our loop, so that accuracies may
be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from topokd_edge.distill.parts import Training
from topokd_edge.distill.trainer import learning_rate
from topokd_edge.models.wrn import WideResNet, WRNSpec

Rows = Sequence[npt.NDArray[np.float32]]


class PlainBlock(nn.Module):
    """A block; modules have the names of `topokd_edge.models.wrn.Block`, so that weights can be shared."""

    def __init__(self, dims: int, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        conv, norm = (nn.Conv1d, nn.BatchNorm1d) if dims == 1 else (nn.Conv2d, nn.BatchNorm2d)
        self.bn1, self.bn2 = norm(inner), norm(outer)
        self.conv1 = conv(inner, outer, 3, stride=stride, padding=1, bias=False)
        self.conv2 = conv(outer, outer, 3, padding=1, bias=False)
        changes = stride != 1 or inner != outer
        self.shortcut = conv(inner, outer, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(activated)
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated)))) + kept
        return out


class PlainNet(nn.Module):
    """A WideResNet of convolutions as they come, with the weights of one of ours."""

    def __init__(self, like: WideResNet) -> None:
        super().__init__()
        spec: WRNSpec = like.spec
        conv, norm = (nn.Conv1d, nn.BatchNorm1d) if spec.dims == 1 else (nn.Conv2d, nn.BatchNorm2d)
        widths = [16, *(16 * spec.width * 2**stage for stage in range(3))]
        self.stem = conv(spec.in_channels, 16, 3, stride=spec.stem_stride, padding=1, bias=False)
        self.blocks = nn.Sequential(
            *(
                PlainBlock(
                    spec.dims,
                    widths[stage + bool(index)],
                    widths[stage + 1],
                    2 if stage and not index else 1,
                )
                for stage in range(3)
                for index in range(spec.blocks_per_stage)
            )
        )
        self.bn, self.head = norm(widths[-1]), nn.Linear(widths[-1], spec.classes)
        self.load_state_dict(like.state_dict())
        self.to(like.head.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.blocks(self.stem(x))))
        logits: Tensor = self.head(x.flatten(2).mean(2))
        return logits


class Windows(Dataset[tuple[Any, ...]]):
    """One window at a time: its arrays (signal, image), and its class."""

    def __init__(self, arrays: Rows, y: npt.NDArray[np.int64]) -> None:
        self._arrays, self._y = arrays, y

    def __len__(self) -> int:
        return len(self._y)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        parts = [torch.from_numpy(np.asarray(array[index], np.float32)) for array in self._arrays]
        return *parts, int(self._y[index])


class PlainLoop:
    """Trains a network on labels, and on the answers of teachers where there are any.

    Parameters
    ----------
    model
        What learns, from the first of `arrays`.
    arrays, y
        Of the windows to learn from; the second of `arrays` is for the second teacher.
    held
        Arrays and classes to test on after every epoch.
    training
        Epochs, batch size, learning rate.
    teachers, alpha, seed
        Networks to learn from; the strength of mixup, 0 is none, and its seed.
    """

    def __init__(
        self,
        model: PlainNet,
        arrays: Rows,
        y: npt.NDArray[np.int64],
        held: tuple[Rows, npt.NDArray[np.int64]],
        training: Training,
        teachers: Sequence[PlainNet] = (),
        alpha: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.model, self.training, self.teachers, self.alpha = model, training, teachers, alpha
        self.rng, self.device = np.random.default_rng(seed), model.head.weight.device
        workers = {"num_workers": 4, "pin_memory": True} if self.device.type == "cuda" else {}
        size = training.batch_size
        self.train_loader = DataLoader(Windows(arrays, y), size, shuffle=True, **workers)  # type: ignore[arg-type]
        self.test_loader = DataLoader(Windows(*held), size, **workers)  # type: ignore[arg-type]
        self.optimiser = torch.optim.SGD(
            model.parameters(), training.learning_rate, training.momentum,
            weight_decay=training.weight_decay,
        )  # fmt: skip
        self.epoch, self.accuracies, self.log = 0, [0.0], {"loss": 0.0, "right": 0.0}

    def run_epoch(self) -> None:
        """Train for one epoch, then test."""
        self.model.train()
        for teacher in self.teachers:
            teacher.eval()
        for step, batch in enumerate(self.train_loader):
            *arrays, y = (part.to(self.device) for part in batch)
            if len(y) < 2:
                continue
            for group in self.optimiser.param_groups:
                group["lr"] = learning_rate(self.training, self.epoch + step / len(self.train_loader))
            target = F.one_hot(y, self.model.head.out_features).float()
            if self.alpha:
                arrays, target = self._mixed(arrays, target)
            logits = self.model(arrays[0])
            loss = -(target * F.log_softmax(logits, 1)).sum(1).mean()
            if self.teachers:
                loss = 0.3 * loss + 0.7 * self._divergence(logits, arrays)
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            self.log["loss"] += loss.item()
            self.log["right"] += (logits.argmax(1) == y).sum().item()
        self.epoch += 1
        self.accuracies.append(self._test())

    def _mixed(self, arrays: list[Tensor], target: Tensor) -> tuple[list[Tensor], Tensor]:
        keep = torch.from_numpy(self.rng.beta(self.alpha, self.alpha, len(target)).astype(np.float32))
        partner = torch.from_numpy(self.rng.permutation(len(target))).to(self.device)

        def mix(x: Tensor) -> Tensor:
            weight = keep.to(self.device).view(-1, *(1 for _ in x.shape[1:]))
            return weight * x + (1 - weight) * x[partner]

        return [mix(x) for x in arrays], mix(target)

    def _divergence(self, logits: Tensor, arrays: list[Tensor]) -> Tensor:
        total = torch.zeros((), device=self.device)
        for weight, teacher, x in zip((0.7, 0.3), self.teachers, arrays, strict=True):
            answer = teacher(x).detach()
            softened = F.softmax(answer / 4, 1)
            total = total + weight * 16 * F.kl_div(
                F.log_softmax(logits / 4, 1), softened, reduction="batchmean"
            )
        return total

    @torch.no_grad()
    def _test(self) -> float:
        self.model.eval()
        right = total = 0
        for batch in self.test_loader:
            x, y = batch[0].to(self.device), batch[-1].to(self.device)
            right += int((self.model(x).argmax(1) == y).sum().item())
            total += len(y)
        return right / total
