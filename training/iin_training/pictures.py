"""What a trained interpretation makes of held-out pictures, as a picture for people."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from iin_bundle import FactorLayout
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from numpy.typing import NDArray
from torch import Tensor

from iin_training.evaluation import Interpreter, swapped
from iin_training.flows import Flow
from iin_training.models.frozen import FrozenModel

__all__ = ["draw_pictures"]

ACROSS = 12  # pictures in a row
SWAPPED = 6  # targets and sources of a swap grid
STEPS = 9  # of an interpolation
SAMPLES = 5 * ACROSS
GAP = 2  # pixels between pictures
INCHES = 10.0  # width of the page
TITLE = 0.35  # inches above a panel
SIDE = 0.1  # inches at the left of the page
LETTER = 0.065  # inches that a letter of a row's name takes
PLAIN: dict[str, Any] = {"parse_math": False}  # a concept's name is text, dollars included
Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Panel:
    """A grid of pictures on the page."""

    title: str
    pixels: Pixels
    """`(h, w, 3)` in [0, 1]."""
    rows: Sequence[str] = ()
    """What each row of pictures is called, at its left."""


@torch.no_grad()
def draw_pictures(
    path: Path,
    model: FrozenModel,
    transform: Flow,
    layout: FactorLayout,
    images: Tensor,
    generator: torch.Generator,
) -> None:
    """Draw a page into the PNG file `path`.

    With a decoder: reconstructions, a swap grid and an interpolation for every factor, and samples from the prior.
    Without one: the pictures themselves, laid out by the two directions in which each factor varies most.
    `images` are held-out pictures, `(N, C, H, W)`, N >= 12; `generator` decides the samples.
    """
    interpreter = Interpreter(model, transform)
    factors = interpreter.factors(images)
    if not model.has_decoder:
        _draw_maps(path, model, layout, images, factors.cpu())
        return
    real = _pixels(images[:ACROSS], model)

    def decoded(values: Tensor) -> Pixels:
        return _pixels(interpreter.images(values), model)

    page: list[Panel] = []
    rows = [real, decoded(factors[:ACROSS])]
    page.append(Panel("Reconstructions: what encoder and decoder keep", _grid(rows), ("pictures", "decoded")))
    targets, sources = factors[:SWAPPED], factors[SWAPPED : 2 * SWAPPED]
    blank = np.ones_like(real[:1])
    for name in layout.names if len(layout.names) > 1 else ():
        rows = [np.concatenate([blank, real[:SWAPPED]])]
        for number, source in enumerate(sources):
            mixed = swapped(targets, source, layout.slice(name))
            rows.append(np.concatenate([real[SWAPPED + number][None], decoded(mixed)]))
        page.append(Panel(f"{name}: that of the picture on the left in the picture above", _grid(rows)))
    first, second = factors[0], factors[1]
    strengths = torch.linspace(0, 1, STEPS, device=first.device)[:, None]
    line = (1 - strengths) * first + strengths * second
    strips = []
    for name in layout.names:
        between = swapped(first.repeat(STEPS, 1), line, layout.slice(name))
        strips.append(np.concatenate([real[:1], decoded(between), real[1:2]]))
    title = "One factor, from that of the left picture to that of the right one"
    page.append(Panel(title, _grid(strips), layout.names))
    noise = torch.randn(SAMPLES, layout.size, generator=generator).to(interpreter.device)
    made = decoded(noise)
    page.append(Panel("Samples from the prior", _grid([*made.reshape(-1, ACROSS, *made.shape[1:])])))
    _draw_page(path, page)


def _pixels(images: Tensor, model: FrozenModel) -> Pixels:
    """Images `(N, C, H, W)` in the model's range, anywhere, as `(N, H, W, 3)` in [0, 1]."""
    low, high = model.value_range
    levels = ((images.cpu() - low) / (high - low)).clamp(0, 1)
    return levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy().astype(np.float32)


def _grid(rows: Sequence[Pixels]) -> Pixels:
    """Rows of pictures `(n, H, W, 3)` as one, with white gaps; `(h, w, 3)`."""
    padded = [np.pad(row, ((0, 0), (GAP, GAP), (GAP, GAP), (0, 0)), constant_values=1) for row in rows]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in padded], axis=0)


def _draw_page(path: Path, page: Sequence[Panel]) -> None:
    """Panels below each other, those of half the width or less in pairs, all at one scale."""
    widest = max(panel.pixels.shape[1] for panel in page)
    lines: list[list[Panel]] = []
    for part in page:
        pair = [*lines[-1], part] if lines else [part]
        if len(pair) == 2 and all(panel.pixels.shape[1] <= 0.6 * widest for panel in pair):
            lines[-1] = pair
        else:
            lines.append([part])
    scale = INCHES / (2 * 0.6 * widest)
    heights = [max(panel.pixels.shape[0] for panel in line) * scale + TITLE for line in lines]
    top = sum(heights)
    figure = Figure(figsize=(INCHES, top))
    for line, height in zip(lines, heights, strict=True):
        for column, panel in enumerate(line):
            tall, wide = panel.pixels.shape[0] * scale, panel.pixels.shape[1] * scale
            named = min(LETTER * max(map(len, panel.rows), default=0), INCHES - SIDE - wide)
            left = SIDE + column * INCHES / 2 + named
            place = (left / INCHES, (top - TITLE - tall) / sum(heights), wide / INCHES, tall / sum(heights))
            axis = figure.add_axes(place)
            axis.imshow(panel.pixels, interpolation="nearest")
            axis.set_axis_off()
            axis.set_title(panel.title, fontsize=8, loc="left", **PLAIN)
            for row, name in enumerate(panel.rows):
                middle = (row + 0.5) / len(panel.rows) * panel.pixels.shape[0]
                axis.text(-GAP, middle, name, fontsize=8, ha="right", va="center", **PLAIN)
        top -= height
    figure.savefig(path, dpi=150)


def _draw_maps(path: Path, model: FrozenModel, layout: FactorLayout, images: Tensor, factors: Tensor) -> None:
    """Pictures in the order of a factor's two largest principal components, a map a factor.

    By rank, since few pictures that are unlike all others would leave these in a heap.
    """
    levels = _pixels(images, model)
    parts = list(layout)
    figure = Figure(figsize=(INCHES, INCHES / 2 * ((len(parts) + 1) // 2)), layout="constrained")
    axes = list(figure.subplots((len(parts) + 1) // 2, 2, squeeze=False).flat)
    for axis, part in zip(axes, parts, strict=False):
        values = factors[:, layout.slice(part.name)].double()
        values = values - values.mean(dim=0)
        count = min(2, part.size)
        plane = torch.zeros(len(values), 2, dtype=torch.float64)
        plane[:, :count] = values @ torch.linalg.svd(values, full_matrices=False).Vh[:count].T
        _scatter(axis, _ranks(plane).numpy(), levels)
        axis.set_title(f"{part.name} ({part.size} dimensions)", fontsize=9, loc="left", **PLAIN)
        axis.set_xlabel("rank in the 1st principal component", fontsize=7)
        axis.set_ylabel("rank in the 2nd" if count > 1 else "", fontsize=7)
    for axis in axes[len(parts) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=150)


def _ranks(values: Tensor) -> Tensor:
    """The place of each of `(N, n)` numbers in the order of its column, from 0; equal ones have equal places."""
    return torch.stack([column.unique(return_inverse=True)[1] for column in values.T], dim=1)


def _scatter(axis: Axes, places: NDArray[np.float64], pictures: Pixels) -> None:
    axis.scatter(places[:, 0], places[:, 1], s=0)
    axis.margins(0.1)
    zoom = 24 / pictures.shape[1]
    for place, picture in zip(places, pictures, strict=True):
        axis.add_artist(AnnotationBbox(OffsetImage(picture, zoom=zoom), tuple(place), frameon=False))
    axis.tick_params(labelsize=6)
