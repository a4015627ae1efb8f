"""A picture of what sketches make of pictures, to look at before anything is trained on it."""

from collections import Counter
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console

from iin_training.own_model import AnyRecipe, OwnModel
from iin_training.pairs import Mixed, PairSource, Sketches
from iin_training.pairs.painting import load_pictures

__all__ = ["draw_sheet", "show_sketches"]

SHOWN = 12  # pictures
PIXELS = 110, 256  # least and most for the height of each picture, margins included
WIDTH = 3.3  # inches of three square pictures, and of narrower ones: their titles need them
WIDEST = 4  # times as wide as high; wider pictures are shown less high, so that the sheet stays in bounds


def show_sketches(recipe: AnyRecipe, directory: Path, console: Console) -> None:
    """Write a sheet, see `draw_sheet`, for each pair of sketches of `recipe`: `sketches-CONCEPT.png`.

    Further ones of a concept are `sketches-CONCEPT-2.png` and so on; a slash in its name is no folder.

    Raises:
        ValueError: where the pairs of the recipe are not from sketches.

    """
    found = _sketches_in(recipe.pairs) if isinstance(recipe, OwnModel) else []
    if not found:
        raise ValueError(f"pairs: expected Sketches in the recipe {recipe.name}, alone or in Mixed, got none")
    directory.mkdir(parents=True, exist_ok=True)
    drawn = Counter[str]()
    for source in found:
        (concept,) = source.concepts
        drawn[concept] += 1
        again = f"-{drawn[concept]}" if drawn[concept] > 1 else ""
        path = directory / f"sketches-{concept.replace('/', '-')}{again}.png"
        draw_sheet(source).savefig(path)
        console.print(f"{concept}: {path}")


def draw_sheet(source: Sketches) -> Figure:
    """A row for each picture: as it was, and re-drawn in the style of either sketch. The sketches are at the top."""
    count = min(SHOWN, len(source.images))
    pictures = load_pictures(source.images, torch.linspace(0, len(source.images) - 1, count).long())
    names = ("picture", *(path.name for path in source.paths))
    columns = (
        [None, *pictures],
        *([sketch, *made] for sketch, made in zip(source.sketches, source.redraw(pictures), strict=True)),
    )
    height, width = pictures.shape[2:]
    least, most = PIXELS
    figure = Figure(
        figsize=(WIDTH * min(max(1, width / height), WIDEST), count + 1.5),
        dpi=min(max(least, 2 * height), most),
        layout="constrained",
    )
    for axes, name, column in zip(figure.subplots(count + 1, 3).T, names, columns, strict=True):
        axes[0].set_title(name, fontsize=8, parse_math=False)
        for axis, picture in zip(axes, column, strict=True):
            axis.set_axis_off()
            if picture is not None:
                levels = ((picture + 1) * 127.5).round().byte().expand(3, -1, -1).permute(1, 2, 0)
                axis.imshow(levels.numpy(), interpolation="nearest")
    return figure


def _sketches_in(pairs: PairSource) -> list[Sketches]:
    """The sources of pairs from sketches in `pairs`, mixed with others or not."""
    if isinstance(pairs, Mixed):
        return [found for source in pairs.sources for found in _sketches_in(source)]
    return [pairs] if isinstance(pairs, Sketches) else []
