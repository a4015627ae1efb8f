"""Several training processes as one: what `torchrun` starts, each with its share of every batch."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

__all__ = [
    "average",
    "average_gradients",
    "joined",
    "leads",
    "of_all",
    "of_share",
    "processes",
    "rank",
    "same_everywhere",
    "share",
    "wait",
]

PATIENCE = timedelta(hours=12)  # the others wait while one evaluates and exports


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that `torchrun` started, if it did; on GPUs each takes its own.

    Raises:
        ValueError: where there are more of them than GPUs.

    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if torch.cuda.is_available():
        started, there = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
        if started > there:
            raise ValueError(
                f"--nproc-per-node: expected at most a process for each GPU, {there} here, got {started}; start fewer, "
                "or put CUDA_VISIBLE_DEVICES= before the command to train on the CPU"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"  # some state is on the CPU, always
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of the processes this one is, from 0."""
    return distributed.get_rank() if processes() > 1 else 0


def leads() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return rank() == 0


def wait() -> None:
    """Go on when every process has come here."""
    if processes() > 1:
        distributed.barrier()


def share(*batch: Tensor) -> list[Tensor]:
    """The rows of every tensor that are this process's, `(N / processes, ...)` each; N is a multiple of `processes()`.

    Every process draws the whole batch, so that one and several learn from the same.
    """
    if (count := processes()) == 1:
        return list(batch)
    return [tensor.chunk(count)[rank()] for tensor in batch]


def of_all(function: Callable[[Tensor], Tensor], *sides: Tensor) -> Tensor:
    """`function` of all `sides`, `(N, ...)` each, one below the other."""
    return function(torch.cat(sides))


def of_share(function: Callable[[Tensor], Tensor], *sides: Tensor) -> Tensor:
    """As `of_all`, but rows of other processes, which `share` takes away, are zeros and are not computed."""
    count = processes()
    found = of_all(function, *share(*sides))
    if count == 1:
        return found
    own = len(found) // len(sides)
    rows = found.new_zeros(len(sides), count, own, *found.shape[1:])
    rows[:, rank()] = found.view(len(sides), own, *found.shape[1:])
    return rows.flatten(0, 2)


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes."""
    if processes() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = average(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


@torch.no_grad()
def same_everywhere(model: nn.Module) -> None:
    """Give every process the leading one's parameters and buffers."""
    if processes() > 1:
        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, 0)


def average(values: Tensor) -> Tensor:
    """The mean of `values`, of any shape, over the processes; gradients pass through."""
    if (count := processes()) == 1:
        return values
    mean: Tensor = _Sum.apply(values) / count  # type: ignore[no-untyped-call]
    return mean


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)  # type: ignore[no-untyped-call, no-any-return]
