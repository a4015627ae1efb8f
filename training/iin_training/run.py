"""A run's directory, randomness, metrics and progress: what every stage of training shares."""

import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import nn

from iin_training.checkpoint import load_checkpoint, read_pointer, save_checkpoint
from iin_training.config import Optimiser
from iin_training.curves import read_metrics
from iin_training.memory import keep_freed
from iin_training.processes import average, leads, same_everywhere, wait

__all__ = ["SETTINGS", "Run", "claimed"]

SETTINGS = "settings.json"  # in a run's directory; written last, since it says that all of it belongs together
LOG_EVERY = 20  # steps between lines of the metrics file
TELL_EVERY = 10.0  # seconds between lines of progress, where no bar can be drawn


class Run:
    """Where a run keeps what it makes, and the source of its randomness.

    Every step of every stage draws from its own generator, seeded by (seed, stage, step). So a run
    that was interrupted goes on exactly as it would have, with no generator state to keep.
    """

    def __init__(
        self,
        directory: Path,
        *,
        seed: int,
        checkpoint_every: int,
        console: Console,
        inputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Make `directory` where there is none.

        Args:
            directory: keeps checkpoints and metrics.
            seed: of every random choice.
            checkpoint_every: steps between checkpoints.
            console: shows the progress bars.
            inputs: what every stage depends on besides its own settings, JSON-ready; part of its checkpoints.

        """
        self.directory = directory
        self.seed = seed
        self.inputs = dict(inputs or {})
        self.checkpoint_every = checkpoint_every
        self.console = console if leads() else Console(quiet=True)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.metrics_path = directory / "metrics.jsonl"
        self._note: Callable[..., None] = lambda note: None
        self._model = nn.Module()  # of the stage that is trained now
        self._remedy = ""  # for a loss of that stage that is not finite
        directory.mkdir(parents=True, exist_ok=True)

    def seed_of(self, stage: str, step: int = 0) -> int:
        """A seed of 32 bits, all that torch's CPU generator uses, for one step of one stage."""
        text = f"{self.seed}/{stage}/{step}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")

    def generator(self, stage: str, step: int = 0) -> torch.Generator:
        """The generator of one step of one stage (on the CPU, so devices agree)."""
        return torch.Generator().manual_seed(self.seed_of(stage, step))

    @contextmanager
    def fixed_randomness(self, stage: str, step: int = -1) -> Iterator[None]:
        """Draws from torch's global generator in this block depend on seed, stage and step only."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.seed_of(stage, step))
            yield

    def steps_done(self, stage: str) -> int:
        """Updates of a stage in its checkpoint, whatever its settings; 0 where there is none."""
        saved = read_pointer(self._folder(stage))
        return saved["step"] if saved else 0

    def steps(
        self,
        stage: str,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        schedule: Optimiser,
        settings: Any,
        remedy: str = "",
    ) -> Iterator[int]:
        """Count the updates still to be made, with a progress bar, checkpoints and the learning rate set.

        Goes on from the stage's checkpoint where there is one. `settings` must equal those of the checkpoint. `remedy`
        says what to do about a loss that is not finite, where a lower learning rate is not the way.
        """
        folder = self._folder(stage)
        settings = {"seed": self.seed, **self.inputs, **settings}
        self._model = model
        self._remedy = remedy or f"Lower the learning rate, and delete {folder} or give another --run-dir"
        done = load_checkpoint(folder, model, optimiser, settings)
        keep_freed()
        same_everywhere(model)
        if leads():
            self._drop_metrics(stage, done)
        if done >= schedule.steps:
            self.console.print(f"{stage}: done before, reused")
            return
        if leads():
            (self.directory / SETTINGS).unlink(missing_ok=True)  # the bundle is not what is trained now
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        name, note = TextColumn("{task.description:>15}"), TextColumn("{task.fields[note]}")
        with Progress(name, *columns, note, console=self.console) as progress:
            task = progress.add_task(stage, total=schedule.steps, completed=done, note="")
            self._note = partial(progress.update, task)
            told = time.monotonic()
            for step in range(done, schedule.steps):
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(schedule, step)
                yield step
                progress.advance(task)
                if (step + 1) % self.checkpoint_every == 0 or step + 1 == schedule.steps:
                    self._check_weights(stage, step)
                    if leads():
                        save_checkpoint(folder, step + 1, model, optimiser, settings)
                    wait()  # so that nobody is further than the checkpoint that a crash would leave
                if not self.console.is_interactive and time.monotonic() - told >= TELL_EVERY:
                    told = time.monotonic()
                    self._tell(progress.tasks[task])

    def record(self, stage: str, step: int, **values: torch.Tensor) -> None:
        """Write scalar `values` of a step to the metrics file, now and then; stop at a loss that is not finite."""
        means = average(torch.stack([value.detach() for value in values.values()])).tolist()
        numbers = dict(zip(values, means, strict=True))
        broken = [name for name, value in numbers.items() if not math.isfinite(value)]
        if broken:
            # Statistics of the batch may have suffered from the images; weights are as the last update left them.
            told = _told_of_broken(self._model.named_parameters())
            told = told or "all weights are finite, so look at the data of this step"
            raise FloatingPointError(
                f"{stage}: {', '.join(broken)} not finite at step {step}; {told}; the last checkpoint is kept. "
                f"{self._remedy}"
            )
        if step % LOG_EVERY or not leads():
            return
        line = {"stage": stage, "step": step, "time": round(time.time(), 3)}
        line |= {name: float(f"{value:.6g}") for name, value in numbers.items()}
        with self.metrics_path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._note(note="  ".join(f"{name} {value:.3g}" for name, value in numbers.items()))

    def _folder(self, stage: str) -> Path:
        return self.directory / "checkpoints" / stage

    def _check_weights(self, stage: str, step: int) -> None:
        """Stop before a good checkpoint is replaced by one that nothing can go on from."""
        if told := _told_of_broken(self._model.state_dict().items()):
            raise FloatingPointError(
                f"{stage}: {told} after step {step}, though the loss was finite; the last checkpoint is kept. "
                f"{self._remedy}"
            )

    def _drop_metrics(self, stage: str, done: int) -> None:
        """Forget lines of steps that an interruption undid."""
        if not self.metrics_path.exists():
            return
        kept = [line for line in read_metrics(self.metrics_path) if line["stage"] != stage or line["step"] < done]
        partial = self.metrics_path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        partial.replace(self.metrics_path)

    def _tell(self, task: Task) -> None:
        """A line for a file or a pipe, where the progress bar shows at the end only."""
        left = "?" if task.time_remaining is None else timedelta(seconds=round(task.time_remaining))
        line = f"{task.description}: update {task.completed:.0f} of {task.total:.0f}, {left} left"
        self.console.print(f"{line}  {task.fields['note']}".rstrip(), highlight=False, soft_wrap=True)


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Keep every other run out of the folder `directory` during this block, where its file system can.

    Raises:
        ValueError: where another run is working in it.

    """
    opened = os.open(directory, os.O_RDONLY)
    try:
        if leads():
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"--run-dir: expected a folder that no other run is working in, got {directory}; wait for its end, "
                    "or name another"
                ) from None
            except OSError:  # some network file systems lock no folders
                pass
        yield
    finally:
        os.close(opened)  # which ends the claim, as the end of the process does


def _told_of_broken(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """How many of the tensors are not finite, and which; nothing where all are."""
    broken = [name for name, value in named if not value.isfinite().all()]
    return f"{len(broken)} of the network's tensors are not finite, the first is {broken[0]}" if broken else ""


def learning_rate(schedule: Optimiser, step: int) -> float:
    """Learning rate of the update after `step` updates."""
    position = step / schedule.steps
    if schedule.schedule == "linear_end":
        return schedule.learning_rate * min(1.0, 2 * (1 - position))
    warm_up = 0.1
    if position < warm_up:
        return schedule.learning_rate * (0.04 + 0.96 * position / warm_up)
    return schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * (position - warm_up) / (1 - warm_up)))
