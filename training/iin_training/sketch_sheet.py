"""A picture of what sketches make of pictures, to look at before anything is trained on it."""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from rich.console import Console
from torch import Tensor

from iin_training.own_model import AnyRecipe, OwnModel
from iin_training.pairs import Mixed, PairSource, Sketches
from iin_training.pairs.painting import load_pictures

__all__ = ["draw_sheet", "show_sketches"]

SHOWN = 12  # pictures
SIDE = 96  # pixels that a picture is shown at, at least
GAP, TEXT = 8, 16  # pixels between pictures, and of a line of text
INK, PAPER = "#222222", "#ffffff"


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
        draw_sheet(source).save(path)
        console.print(f"{concept}: {path}")


def draw_sheet(source: Sketches) -> Image.Image:
    """A row a picture: as it was, and re-drawn in the style of either sketch; the sketches stand at the top."""
    count = min(SHOWN, len(source.images))
    chosen = torch.linspace(0, len(source.images) - 1, count).long()
    pictures = load_pictures(source.images, chosen)
    drawn_a, drawn_b = source.redraw(pictures)
    sketch_a, sketch_b = source.sketches
    name_a, name_b = (path.name for path in source.paths)
    columns = (("picture", None, pictures), (name_a, sketch_a, drawn_a), (name_b, sketch_b, drawn_b))
    height, width = pictures.shape[2:]
    scale = -(-SIDE // min(height, width))
    across, down = scale * width + GAP, scale * height + GAP
    sheet = Image.new("RGB", (GAP + len(columns) * across, TEXT + 2 * GAP + (count + 1) * down), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, (name, sketch, drawn) in enumerate(columns):
        left = GAP + column * across
        pen.text((left, GAP // 2), name, fill=INK)
        if sketch is not None:
            sheet.paste(_shown(sketch, scale), (left, TEXT + GAP // 2))
        for row, picture in enumerate(drawn, start=1):
            sheet.paste(_shown(picture, scale), (left, TEXT + GAP + row * down))
    line = TEXT + GAP // 2 + down - GAP // 4
    pen.line((GAP, line, sheet.width - GAP, line), fill=INK)
    return sheet


def _sketches_in(pairs: PairSource) -> list[Sketches]:
    """The sources of pairs from sketches in `pairs`, mixed with others or not."""
    if isinstance(pairs, Mixed):
        return [found for source in pairs.sources for found in _sketches_in(source)]
    return [pairs] if isinstance(pairs, Sketches) else []


def _shown(picture: Tensor, scale: int) -> Image.Image:
    """`(C, H, W)` in [-1, 1], enlarged without smoothing."""
    levels = ((picture + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    image = Image.fromarray(np.ascontiguousarray(levels).squeeze(2) if levels.shape[2] == 1 else levels)
    return image.convert("RGB").resize((scale * image.width, scale * image.height), Image.Resampling.NEAREST)
