"""One page that shows what the factors of a model mean."""

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iin_client.arguments import Picture
from iin_client.client import Client
from iin_client.fitting import as_seen, interpreted
from iin_client.inputs import Factors, Interpolation, Replace
from iin_client.model import Model
from iin_client.sheet import Section, contact_sheet, draw_grid, draw_page

__all__ = ["draw_gallery"]

_STEPS = 8  # of an interpolation
_SAMPLES, _SAMPLE_SEED = 64, 0
_SWAPPED = 6
_ACROSS = 16

_Array = NDArray[np.float32]
_Pictures = Sequence[Image.Image]


def draw_gallery(client: Client, model: Model, pictures: Sequence[Picture], *, resize: bool) -> Image.Image:
    """Reconstructions, swaps and interpolations of two or more image files, and samples from the prior.

    `model` is the client's, with a decoder; `resize` is that of `Client.interpret`. Prints lines of progress to stderr.
    Raises what `client` raises, and OSError for files that are no whole pictures.
    """
    _progress(f"interpreting {len(pictures)} pictures with {model.name} {model.version}")
    factors = np.concatenate([found.factors for _, found in interpreted(client, model, pictures, resize=resize)])
    seen = [as_seen(picture.data, model) for picture in pictures]
    _progress("reconstructions")
    sections = [_reconstructions(client, model, factors, seen)]
    _progress("swaps")
    sections.append(_swap_grids(client, model, factors[:_SWAPPED], seen[:_SWAPPED]))
    _progress("interpolations")
    sections.append(_interpolations(client, model, factors, seen))
    _progress("samples")
    sections.append(_samples(client))
    sizes = ", ".join(f"{part.name} {part.size}" for part in model.factors)
    subtitle = f"Factors and their dimensions: {sizes}. Trained on {model.data_set}."
    return draw_page(f"{model.name} {model.version}", subtitle, sections)


def _progress(step: str) -> None:
    print(f"iin: {step}", file=sys.stderr)


def _reconstructions(client: Client, model: Model, factors: _Array, seen: _Pictures) -> Section:
    panels = []
    for start in range(0, len(seen), _ACROSS):
        part = slice(start, start + _ACROSS)
        unchanged = Replace(model.factors[0].name, Factors(factors[0]), strength=0)
        made = client.edit(Factors(factors[part]), unchanged).images.pictures
        panels.append(("", draw_grid([seen[part], made], row_heads=("image", "model"))))
    return Section(
        title="Reconstructions",
        caption="Above the image, below what is left of it after encoder, transform, inverse and decoder, "
        "with nothing edited. What is lost here, encoder and decoder lose: no edit can bring it back.",
        panels=panels,
    )


def _swap_grids(client: Client, model: Model, factors: _Array, seen: _Pictures) -> Section:
    panels = []
    for part in model.factors:
        edits = [Replace(part.name, Factors(source)) for source in factors]
        rows = [client.edit(Factors(factors), edit).images.pictures for edit in edits]
        panels.append((part.name, draw_grid(rows, row_heads=seen, column_heads=seen)))
    return Section(
        title="Swaps",
        caption="Each cell is the picture at the head of its column with one factor taken from the picture "
        "at the head of its row. Along a row that factor should stay the same, down a column all else "
        "should. The diagonal is unchanged.",
        panels=panels,
    )


def _interpolations(client: Client, model: Model, factors: _Array, seen: _Pictures) -> Section:
    rows = []
    for part in model.factors:
        path = Interpolation(Factors(factors[-1]), [part.name])
        frames = client.traverse(Factors(factors[0]), path, _STEPS + 1)
        rows.append([seen[0], *(p for chunk in frames for p in chunk.images.pictures), seen[-1]])
    heads = ["target", *(f"{step / _STEPS:g}" for step in range(_STEPS + 1)), "source"]
    names = [part.name for part in model.factors]
    return Section(
        title="Interpolations",
        caption="Each row moves one factor of the target to that of the source, at the strength above, and "
        "leaves the others. Changes should be gradual, and no step should look out of place.",
        panels=[("", draw_grid(rows, row_heads=names, column_heads=heads))],
    )


def _samples(client: Client) -> Section:
    pictures = [p for chunk in client.sample(_SAMPLES, seed=_SAMPLE_SEED) for p in chunk.images.pictures]
    return Section(
        title="Samples from the prior",
        caption=f"All factors drawn from the standard normal distribution (seed {_SAMPLE_SEED}), none left "
        "out. They should be as good and as varied as the reconstructions above.",
        panels=[("", contact_sheet(pictures, columns=_ACROSS))],
    )
