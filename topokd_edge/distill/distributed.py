"""Several processes that train together: started by Lightning Fabric, joined by torch.distributed.

Every process does the same work in the same order on the same draws; only the rows of a batch are shared out
(`topokd_edge.distill.shared`). The first process alone writes to the run and talks.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from topokd_edge.errors import MissingError, TopokdError, UsageError
from topokd_edge.run import Run

TIMEOUT = timedelta(hours=1)
"""How long one waits for the others, which may be making images; one that has ended is missed at once."""


def start(devices: int, nodes: int, device: str) -> None:
    """Start and join the processes, or join those that torchrun or a cluster's launcher has started.

    One device on one node starts nothing. A process that Fabric starts runs the same command.

    Parameters
    ----------
    devices
        Processes on each node, and GPUs where `device` is not `cpu` and there are any.
    nodes
        Machines; the command is started on each, with `MASTER_ADDR`, `MASTER_PORT` and `NODE_RANK` set
        unless a launcher does so.
    device
        `auto`, `cpu` or `cuda`.

    Raises
    ------
    MissingError
        When there are fewer GPUs than devices.
    UsageError
        When the numbers differ from those that torchrun was given.
    TopokdError
        When the processes do not find each other.
    """
    devices, nodes = _asked(devices, nodes)
    if devices * nodes == 1 or dist.is_initialized():
        return
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda and torch.cuda.device_count() < devices:
        raise MissingError(f"--devices {devices}: this machine has {torch.cuda.device_count()} CUDA devices")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    strategy = DDPStrategy(process_group_backend="cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=TIMEOUT)
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu", devices=devices, num_nodes=nodes, strategy=strategy
    )
    try:
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise TopokdError(
            f"{devices * nodes} processes did not find each other: {error}",
            hint="start the command on every node, with the same MASTER_ADDR and MASTER_PORT",
        ) from None


def end() -> bool:
    """Wait for all processes and part; return whether this one was the first, which goes on alone."""
    wait()
    alone = first()
    if several():
        dist.destroy_process_group()
    return alone


def several() -> bool:
    """Return whether this process trains together with others."""
    return dist.is_initialized() and dist.get_world_size() > 1


def size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if several() else 1


def first() -> bool:
    """Return whether this process is the one that writes and talks."""
    return not several() or dist.get_rank() == 0


def share(rows: int) -> slice:
    """Return which of so many rows are this process's own."""
    if not several():
        return slice(0, rows)
    rank = dist.get_rank()
    return slice(rows * rank // size(), rows * (rank + 1) // size())


def add_up(tensor: Tensor) -> None:
    """Replace a tensor by its sum over all processes.

    Raises
    ------
    TopokdError
        When another process has ended or keeps the others waiting.
    """
    try:
        dist.all_reduce(tensor)
    except RuntimeError as error:
        raise TopokdError(
            f"process {dist.get_rank() + 1} of {size()}: another process has ended, or was silent "
            f"for {TIMEOUT} ({str(error).partition('. ')[0]})",
            hint="it said why if it could; when that is mended, go on with --resume",
        ) from None


def wait() -> None:
    """Wait until every process has come here."""
    if several():
        add_up(torch.zeros(1))


@contextmanager
def first_ahead() -> Iterator[None]:
    """Let the first process do something before the others do it."""
    if not first():
        wait()
    yield
    if first():
        wait()


@contextmanager
def own_run(run: Run) -> Iterator[Run]:
    """Give the first process the run, and every other a copy of it that is thrown away in the end.

    So all go on from the same state, and whatever a training writes, each writes to a place of its own.
    """
    if first():
        wait()
        yield run
        return
    with tempfile.TemporaryDirectory(prefix="topokd-edge-") as folder:
        copy = Path(folder) / "run"
        shutil.copytree(run.folder, copy, ignore=shutil.ignore_patterns("cache", "*.part"))
        wait()
        yield Run(copy)


def _asked(devices: int, nodes: int) -> tuple[int, int]:
    """Return devices and nodes as asked for, or as torchrun has them."""
    if not dist.is_torchelastic_launched():
        return devices, nodes
    theirs = int(os.environ["LOCAL_WORLD_SIZE"])
    found = (theirs, int(os.environ["WORLD_SIZE"]) // theirs)
    if (devices, nodes) not in ((1, 1), found):
        raise UsageError(
            f"--devices {devices} --nodes {nodes}: torchrun has started {found[0]} processes on each of "
            f"{found[1]} nodes",
            hint="leave both options out under torchrun",
        )
    return found
