"""One page that shows what the factors of a model mean."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iin_client.arguments import Picture
from iin_client.client import Client
from iin_client.fitting import array_size, as_seen, interpreted, parts
from iin_client.inputs import Factors, Replace
from iin_client.model import Model
from iin_client.sheet import Section, contact_sheet, draw_grid, draw_page

__all__ = ["STRENGTHS", "draw_gallery", "interpolation", "swaps"]

STRENGTHS = tuple(step / 8 for step in range(9))
"""Steps of an interpolation, from the target's factor (0) to the source's (1)."""

_SAMPLES, _SAMPLE_SEED = 64, 0
_SWAPPED = 6
_ACROSS = 16
_PAGE_WIDTH = 1600

_Array = NDArray[np.float32]
_Pictures = list[Image.Image]


def draw_gallery(
    client: Client, model: Model, pictures: Sequence[Picture], *, resize: bool, progress: Callable[[str], None]
) -> Image.Image:
    """Reconstructions, swaps and interpolations of two or more image files, and samples from the prior.

    `model` is the client's, with a decoder; `resize` is that of `Client.interpret`; `progress` is told what comes
    next. Raises what `client` raises, and OSError for files that are no whole pictures.
    """
    progress(f"interpreting {len(pictures)} pictures with {model.name} {model.version}")
    factors = np.concatenate([found.factors for _, found in interpreted(client, model, pictures, resize=resize)])
    seen = [as_seen(picture.data, model) for picture in pictures]
    progress("reconstructions")
    sections = [_reconstructions(client, model, factors, seen)]
    progress("swaps")
    sections.append(_swap_grids(client, model, factors[:_SWAPPED], seen[:_SWAPPED]))
    progress("interpolations")
    sections.append(_interpolations(client, model, factors, seen))
    progress("samples")
    sections.append(_samples(client, model))
    sizes = ", ".join(f"{part.name} {part.size}" for part in model.factors)
    subtitle = f"Factors and their dimensions: {sizes}. Trained on {model.data_set}."
    return draw_page(f"{model.name} {model.version}", subtitle, sections, width=_PAGE_WIDTH)


def swaps(factors: _Array) -> tuple[_Array, _Array]:
    """Targets and sources `(n * n, D)` that swap `(n, D)` factors: a row a source, a column a target."""
    count = len(factors)
    return np.tile(factors, (count, 1)), np.repeat(factors, count, axis=0)


def interpolation(target: _Array, source: _Array) -> tuple[_Array, _Array]:
    """Targets and sources `(9, D)` that lead from `target` `(D,)` to `source` in the steps of `STRENGTHS`.

    To take a factor over from `(1 - s) target + s source` is to replace it with strength `s`, and one call
    does it for every strength.
    """
    strengths = np.array(STRENGTHS, dtype=np.float32)[:, None]
    return np.tile(target, (len(STRENGTHS), 1)), (1 - strengths) * target + strengths * source


def _reconstructions(client: Client, model: Model, factors: _Array, seen: _Pictures) -> Section:
    # Every picture takes a factor over from itself, which changes nothing.
    made = _replaced(client, model, model.factors[0].name, factors, factors)
    panels = [
        ("", draw_grid([seen[part], made[part]], row_heads=("image", "model")))
        for part in (slice(start, start + _ACROSS) for start in range(0, len(seen), _ACROSS))
    ]
    return Section(
        title="Reconstructions",
        caption="Above the image, below what is left of it after encoder, transform, inverse and decoder, "
        "with nothing edited. What is lost here, encoder and decoder lose: no edit can bring it back.",
        panels=panels,
    )


def _swap_grids(client: Client, model: Model, factors: _Array, seen: _Pictures) -> Section:
    panels = []
    for part in model.factors:
        made = _replaced(client, model, part.name, *swaps(factors))
        rows = [made[start : start + len(seen)] for start in range(0, len(made), len(seen))]
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
        made = _replaced(client, model, part.name, *interpolation(factors[0], factors[-1]))
        rows.append([seen[0], *made, seen[-1]])
    heads = ["target", *(f"{strength:g}" for strength in STRENGTHS), "source"]
    names = [part.name for part in model.factors]
    return Section(
        title="Interpolations",
        caption="Each row moves one factor of the target to that of the source, at the strength above, and "
        "leaves the others. Changes should be gradual, and no step should look out of place.",
        panels=[("", draw_grid(rows, row_heads=names, column_heads=heads))],
    )


def _samples(client: Client, model: Model) -> Section:
    count = min(_SAMPLES, model.limits.max_samples)
    pictures = [p for chunk in client.sample(count, seed=_SAMPLE_SEED) for p in chunk.images.pictures]
    return Section(
        title="Samples from the prior",
        caption=f"All factors drawn from the standard normal distribution (seed {_SAMPLE_SEED}), none left "
        "out. They should be as good and as varied as the reconstructions above.",
        panels=[("", contact_sheet(pictures, columns=_ACROSS))],
    )


def _replaced(client: Client, model: Model, factor: str, targets: _Array, sources: _Array) -> _Pictures:
    pictures: _Pictures = []
    for part in parts([array_size(targets[0], sources[0])] * len(targets), model.limits):
        edit = Replace(factor, Factors(sources[part]))
        pictures += client.edit(Factors(targets[part]), edit).images.pictures
    return pictures
