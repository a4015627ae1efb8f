"""Picture files that tell their number: one colour each, whose red level is ten times it."""

import torch
from iin_training.data.images import ImageFiles
from PIL import Image
from rich.console import Console

QUIET = Console(quiet=True)


def all_of(images, generator=None):
    return images.load(torch.arange(len(images)), generator)


def levels_of(loaded):
    """What was loaded in [-1, 1] as whole levels, `(N, H, W, C)`."""
    return ((loaded + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def write_numbered(folder, count=6, names=None):
    """Pictures of one colour each, its red level the number of the picture times 10."""
    paths = [folder / name for name in names or [f"{number}.png" for number in range(count)]]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (10 * number, 0, 255)).save(path)
    return paths


def files(paths, **changed):
    return ImageFiles(paths, **{"size": (8, 8), "console": QUIET} | changed)


def numbers(loaded):
    return (levels_of(loaded)[:, 4, 4, 0] / 10).round().astype(int).tolist()
