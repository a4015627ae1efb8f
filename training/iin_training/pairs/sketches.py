"""Pairs from two sketches that differ in one concept: every picture is re-drawn in the style of each."""

import math
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from iin_training.config import Optimiser
from iin_training.data.digests import digest_of, images_digest
from iin_training.data.images import ImageArray, Images, Pictures
from iin_training.data.picture_files import decode_levels
from iin_training.models.painter import Painter
from iin_training.models.perceptual import LEAST, PACKAGE
from iin_training.pairs.base import (
    MIN_PAIRS,
    PairBatch,
    Shares,
    check_concept,
    check_count,
    join_batches,
    split_evenly,
)
from iin_training.pairs.image_pairs import load_pairs
from iin_training.pairs.painting import SETTINGS, load_pictures, train_painter
from iin_training.processes import leads, wait
from iin_training.run import Run

__all__ = ["Sketches"]

BATCH = 4  # pictures an update, each in both styles
RATE = 8e-3
CHECKPOINT_EVERY = 25  # steps, of about a fifth of a second on one core at 32 pixels
DRAWN_AT_ONCE = 64  # pictures
SEED = 0


class Sketches:
    """Pictures re-drawn in the styles of two sketches that differ in one concept.

    Half of the pairs are one picture re-drawn in either style: they share everything but the concept. The other half
    are two different pictures re-drawn in the same style: they share the concept and nothing else. The paper names the
    first kind only. The second follows from the same drawings, and is what the size of the concept's factor is
    estimated from; without it T would learn what the concept leaves alone, but not that equal style means equal factor.

    What is transferred well is colour and brightness. Textures and the width of strokes come out weakly: look at the
    re-drawn pictures (`iin-train sketches`) before training on them.

    A small network learns to re-draw (once, for about a minute on one core at 32 pixels), then every picture is
    re-drawn (once). Both happen when pairs are first drawn, go on after an interruption, and are kept in `folder`.
    Source: Esser, Rombach, Ommer (CVPR 2020), section 3.2, sketches; for the network see `train_painter`.
    """

    def __init__(
        self,
        images: Pictures,
        sketch_a: str | Path,
        sketch_b: str | Path,
        concept: str,
        *,
        folder: str | Path = "build/sketches",
        content: float = 1.0,
        steps: int = 300,
        console: Console | None = None,
    ) -> None:
        """Read the sketches.

        Args:
            images: pictures to re-draw, at least 18 pixels high and wide. What is re-drawn is augmented as they are;
                alike in both pictures of a pair, where they are one picture in two styles.
            sketch_a: a picture file of any size, brought to the images' size as `ImageFiles` does.
            sketch_b: another one, which differs from the first in nothing but the concept.
            concept: name of what they differ in.
            folder: keeps the network and the pictures re-drawn, under digests of all they depend on.
            content: weight of the pictures' content beside the sketches' style, at least 0: more keeps more of the
                shapes, less draws more as in the sketch.
            steps: updates of the network that re-draws.
            console: shows progress.

        Raises:
            ValueError: where a sketch is unreadable, blank, or the same as the other; where there are too few images.

        """
        self.concepts = (check_concept(concept),)
        if len(images) < MIN_PAIRS:
            raise ValueError(f"images: expected at least {MIN_PAIRS} to re-draw, got {len(images)}")
        least = LEAST["vgg16"]
        if min(images.shape.height, images.shape.width) < least:
            raise ValueError(
                f"images: expected at least {least}x{least} pixels to tell styles by, "
                f"got {images.shape.height}x{images.shape.width}; give ImageFiles a larger size"
            )
        if not 0 <= content < float("inf"):
            raise ValueError(f"content: expected a finite weight of at least 0, got {content}")
        levels = _read_sketch(sketch_a, images, "sketch_a"), _read_sketch(sketch_b, images, "sketch_b")
        if np.array_equal(levels[0], levels[1]):
            raise ValueError(
                f"sketch_b: expected a sketch that differs from {sketch_a} in {concept}, got the same picture"
            )
        self.paths = (Path(sketch_a), Path(sketch_b))
        """The sketches' files."""
        self.sketches: Tensor = torch.from_numpy(np.stack(levels)).float() / 127.5 - 1
        """Both, `(2, C, H, W)` in [-1, 1]."""
        self.images = images
        """The pictures as they were before."""
        self._practice = images
        self._content = float(content)
        self._schedule = Optimiser(steps=steps, batch_size=BATCH, learning_rate=RATE, schedule="linear_end")
        self._console = console or Console()
        self._folder = Path(folder)
        self._drawn: Images | None = None

    def on(self, images: Pictures) -> "Sketches":
        """The same concept on other pictures, for `held_out`: re-drawn by the same network, not trained on them."""
        if len(images) < MIN_PAIRS or images.shape != self.images.shape:
            raise ValueError(
                f"images: expected at least {MIN_PAIRS} of {self.images.shape}, as the network has learnt to re-draw, "
                f"got {len(images)} of {images.shape}"
            )
        other = copy(self)
        other.images, other._drawn = images, None
        return other

    def draw(self, count: int, factors: tuple[str, ...], generator: torch.Generator) -> PairBatch:
        """Draw pairs of both kinds, see `PairSource.draw`."""
        check_count(count)
        concept = frozenset(self.concepts)
        everything_but, alone = split_evenly(count, 2, generator)
        drawn, batches = self._redrawn(), []
        # Picture i is number 2 i in the first style and 2 i + 1 in the second.
        if everything_but:
            first = torch.randint(2 * len(self.images), (everything_but,), generator=generator)
            pair = load_pairs(drawn, first, first ^ 1, generator, alike=True)
            batches.append(PairBatch(*pair, Shares(concept, everything_but=True).columns(everything_but, factors)))
        if alone:
            first = torch.randint(2 * len(self.images), (alone,), generator=generator)
            others = torch.randint(1, len(self.images), (alone,), generator=generator)
            second = (first + 2 * others) % (2 * len(self.images))
            batches.append(
                PairBatch(*load_pairs(drawn, first, second, generator), Shares(concept).columns(alone, factors))
            )
        return join_batches(batches)

    def over(self, change: Callable[[Images], Images]) -> "Sketches":
        """The same pairs of other images in the place of those re-drawn; see `pairs.base.over`."""
        other = copy(self)
        other._drawn = change(self._redrawn())
        return other

    def drawable(self) -> Iterable[tuple[Images, Tensor]]:
        """All pictures as they are re-drawn, see `pairs.base.drawable`."""
        drawn = self._redrawn()
        return [(drawn, torch.arange(len(drawn)))]

    def digest(self) -> str:
        """Hexadecimal sha256 over all pictures, those practised on included, the sketches, concept and settings."""
        return digest_of("Sketches", self.concepts, self._key(), images_digest(self.images))

    def redraw(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Re-draw `pictures`, `(N, C, H, W)` in [-1, 1], in the style of either sketch: two tensors alike."""
        painter, device = self._painter()
        first, second = (_paint(painter, pictures.to(device), style).cpu() for style in (0, 1))
        return first, second

    def _key(self) -> str:
        """Names what the painter depends on."""
        practice, schedule = self._practice, self._schedule
        settings = (*SETTINGS, BATCH, RATE, SEED, self._content, schedule.steps)
        return digest_of("painter", PACKAGE.sha256, practice.sha256, self.sketches, settings)

    def _painter(self) -> tuple[Painter, torch.device]:
        """The network that re-draws, trained where it is not; and where it is."""
        folder = self._folder / self._key()[:16]
        run = Run(folder, seed=SEED, checkpoint_every=CHECKPOINT_EVERY, console=self._console)
        return train_painter(self._practice, self.sketches, self._schedule, self._content, run), run.device

    def _redrawn(self) -> Images:
        """All pictures in both styles, one after the other, mapped from the disk; drawn where they are not yet."""
        if self._drawn is None:
            name = digest_of(self.images.sha256, tuple(self.sketches.shape))[:16]
            file = self._folder / self._key()[:16] / f"redrawn-{name}.levels"
            there = file.is_file()
            wait()  # all have looked before one draws
            if not there:
                painter, device = self._painter()
                if leads():
                    self._redraw_all(file, painter, device)
                wait()
            shape = self.images.shape
            levels = np.memmap(
                file, np.uint8, "r", shape=(2 * len(self.images), shape.height, shape.width, shape.channels)
            )
            self._drawn = ImageArray(levels, value_range=self.images.value_range, augmentation=self.images.augmentation)
        return self._drawn

    def _redraw_all(self, file: Path, painter: Painter, device: torch.device) -> None:
        """Write levels of `(2 N, H, W, C)`, going on where an interruption left off."""
        partial = file.with_name(file.name + ".partial")
        partial.touch()
        size = 2 * math.prod(astuple(self.images.shape))  # bytes of one picture in both styles
        done = partial.stat().st_size // size
        starts = range(done // DRAWN_AT_ONCE * DRAWN_AT_ONCE, len(self.images), DRAWN_AT_ONCE)
        with partial.open("r+b") as opened:
            for start in track(starts, "re-drawing", console=self._console):
                chosen = torch.arange(start, min(start + DRAWN_AT_ONCE, len(self.images)))
                pictures = load_pictures(self.images, chosen).to(device)
                styles = torch.stack([_paint(painter, pictures, style) for style in (0, 1)], dim=1).flatten(0, 1)
                levels = ((styles + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
                # At its own place, so that a second run that draws the same does no harm.
                opened.seek(start * size)
                opened.write(levels.cpu().numpy().tobytes())
        if not file.is_file():  # a second run that drew the same may have been quicker
            partial.replace(file)


@torch.no_grad()
def _paint(painter: Painter, pictures: Tensor, style: int) -> Tensor:
    numbers = torch.full((len(pictures),), style, device=pictures.device)
    drawn: Tensor = painter(pictures, numbers)
    return drawn.clamp(-1, 1)


def _read_sketch(path: str | Path, images: Pictures, field: str) -> NDArray[np.uint8]:
    try:
        levels = decode_levels(Path(path).read_bytes(), images.shape)
    except (OSError, ValueError) as error:
        raise ValueError(f"{field}: expected a picture file, but {path} is none: {error}") from error
    if levels.min() == levels.max():
        raise ValueError(f"{field}: expected something drawn, but {path} is blank; transparency is laid on black")
    return levels
