"""Saving and restoring a stage of training: tensors in safetensors, the rest in JSON, no pickle."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

__all__ = ["load_checkpoint", "read_pointer", "save_checkpoint"]

POINTER = "checkpoint.json"


def save_checkpoint(folder: Path, step: int, model: nn.Module, optimiser: torch.optim.Optimizer, settings: Any) -> None:
    """Keep the state after `step` updates; the one before is removed once the new one is complete and on the disk.

    `settings` is JSON-ready and decides whether a later run may go on from here.

    Raises:
        OSError: where it cannot be written; the one before is still there then.

    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.partial"):  # by a run that was killed while it wrote
        left.unlink()
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
    weights = folder / f"step-{step:08d}.safetensors"
    partial = weights.with_suffix(".partial")
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial)
        _sync(partial)
    except (SafetensorError, OSError) as error:  # a full disk, mostly
        partial.unlink(missing_ok=True)
        raise OSError(f"{weights}: could not be written ({error}); the checkpoint before it is kept") from error
    partial.replace(weights)
    pointer = folder / (POINTER + ".partial")
    pointer.write_text(json.dumps({"step": step, "weights": weights.name, "settings": settings}, indent=2))
    _sync(pointer)
    _sync(folder)  # the name of the weights, before something points there
    pointer.replace(folder / POINTER)
    _sync(folder)
    for old in folder.glob("step-*.safetensors"):
        if old != weights:
            old.unlink()


def read_pointer(folder: Path) -> dict[str, Any] | None:
    """What a stage's checkpoint says of itself, `step`, `weights` and `settings`; None where there is none.

    Raises:
        ValueError: where it is damaged.

    """
    path = folder / POINTER
    if not path.is_file():
        return None
    try:
        saved: dict[str, Any] = json.loads(path.read_text())
        for name, kind in (("step", int), ("weights", str), ("settings", dict)):
            if not isinstance(saved[name], kind):
                raise TypeError(f"{name} is {saved[name]!r}")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    return saved


def load_checkpoint(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, settings: Any) -> int:
    """Restore the newest state of a stage into `model` and `optimiser`.

    Returns:
        The number of updates made so far; 0 where there is no checkpoint.

    Raises:
        ValueError: where the checkpoint was made with other settings (they are named) or is damaged.

    """
    settings = json.loads(json.dumps(settings))  # as they are saved: tuples are lists
    if (saved := read_pointer(folder)) is None:
        return 0
    try:
        tensors = load_file(folder / saved["weights"])
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(folder / saved["weights"], error) from error
    if differences := _differences(saved["settings"], settings):
        raise ValueError(
            f"{folder}: this checkpoint was made with other settings ({differences}); "
            "give the same ones, or another --run-dir, or delete this folder to train again"
        )
    try:
        model.load_state_dict(_strip(tensors, "model/"))
    except RuntimeError as error:  # same settings, another version of the code
        told = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{folder}: expected the weights of this network, got those of another ({told}...); "
            "give another --run-dir, or delete this folder to train again"
        ) from error
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for name, value in _strip(tensors, "optimiser/").items():
        index, key = name.split("/")
        like = parameters[int(index)]
        # In the parameter's memory order: a fused optimiser walks through both as they lie in memory.
        moment = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(index), {})[key] = moment
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
    return int(saved["step"])


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, where a power cut leaves them."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # what some network file systems say of folders
            raise
    finally:
        os.close(opened)


def _damaged(path: Path, error: Exception) -> ValueError:
    """What to say of a file of a checkpoint that does not read."""
    told = f"{type(error).__name__}: {error}"
    return ValueError(
        f"{path.parent}: expected a whole checkpoint, but {path.name} does not read ({told}); delete this folder"
    )


def _strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _differences(before: Any, now: Any, path: str = "") -> str:
    """Names of the settings that differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        parts = (
            _differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
            for key in sorted(before.keys() | now.keys())
        )
        return ", ".join(part for part in parts if part)
    return "" if before == now else f"{path}: {before} then, {now} now"
