"""Latents of pairs from a frozen encoder: computed once where images stay the same, else at every draw."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from iin_training.data.digests import images_digest, knows
from iin_training.data.images import Images
from iin_training.models.checks import Findings
from iin_training.models.frozen import FrozenModel
from iin_training.pairs.base import PairBatch, PairSource, over
from iin_training.processes import leads, of_all
from iin_training.progress import late_bar
from iin_training.run import Run

__all__ = ["MOST_BYTES", "PairLatents", "at_once", "in_parts"]

MOST_BYTES = 2 * 10**9
"""Most memory that latents of a source's images may take; beyond, images are encoded at every draw."""
ENCODED_AT_ONCE = {"cpu": 64, "cuda": 512}
PAIRS_AT_ONCE = 2000  # drawn at a time where only latents are wanted, fewer of large pictures
USUAL = 3 * 64 * 64  # numbers in a picture that is not large


def at_once(count: int, image_shape: tuple[int, ...]) -> int:
    """At most `count`: the pictures of `image_shape`, (C, H, W), in the memory of `count` of 64x64 in colour."""
    return max(1, min(count, count * USUAL // math.prod(image_shape)))


def in_parts(count: int, most: int) -> list[int]:
    """Split `count` into nearly equal parts of at most `most`: a small rest could lack pairs of a rare kind."""
    number = math.ceil(count / most)
    return [count // number + (part < count % number) for part in range(number)]


class PairLatents:
    """Pairs of a source as the encoder sees them.

    Where the source can be moved to other images (`pairs.base.over`) and its images are still (`Images.still`), every
    image goes through the encoder once, and the result is kept in the run's directory under digests of model and
    images: 4 bytes a number in memory and on the disk, D numbers an image, 2 D where the encoder samples. Draws are the
    same either way, except for the encoder's rounding in batches of another size.
    """

    def __init__(self, model: FrozenModel, pairs: PairSource, run: Run, *, draws: int) -> None:
        """Encode the images where that pays.

        Args:
            model: with its parts on the run's device.
            pairs: where pairs come from.
            run: has the directory and the device.
            draws: images that will be drawn; a source of more is not encoded as a whole.

        """
        self.concepts = pairs.concepts
        self._model, self._device = model, run.device
        encoder = _Encoder(model, run, draws)
        try:
            # All images are checked before the first is encoded.
            moved = over(pairs, encoder.once) if over(pairs, encoder.checked) is not None else None
        except _AtEveryDraw:
            moved = None
        self._known = moved is not None
        self._pairs = moved or pairs

    def draw(self, count: int, factors: tuple[str, ...], generator: torch.Generator) -> PairBatch:
        """Draw pairs, see `PairSource.draw`; what stands for their images is for `posterior`."""
        return self._pairs.draw(count, factors, generator)

    @torch.no_grad()
    def sampled(
        self,
        batch: PairBatch,
        generator: torch.Generator,
        findings: Findings | None = None,
        encode: Callable[..., Tensor] = of_all,
    ) -> Tensor:
        """Latents `(2 N, *latent_shape)` on the device, as T is trained on them, of both sides of a batch of `draw`.

        `generator` decides what is drawn from the encoder's posterior, `findings` tells of dimensions that need noise,
        and `encode` is `of_all`, or `of_share` where only this process's rows are wanted.
        """
        latents = self._model.sample(encode(self.posterior, batch.images_a, batch.images_b), generator)
        return latents if findings is None else findings.dequantised(latents, generator)

    def posterior(self, drawn: Tensor) -> Tensor:
        """The encoder's posterior, see `FrozenModel.posterior`, of rows of `images_a` or `images_b` of a batch."""
        there = drawn.to(self._device)
        return there if self._known else self._model.posterior(there)

    @torch.no_grad()
    def latents(self, drawn: Tensor) -> Tensor:
        """The latents used after training, `(N, *latent_shape)` on the CPU, of rows of a batch; a sampler's means."""
        return self.posterior(drawn)[:, 0].cpu()

    def drawn(self, count: int, factors: tuple[str, ...], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw pairs of which only latents are wanted, large pictures in parts, so that few are in memory.

        Returns:
            `latents` of the first and of the second images, and what they share, `(count, K)`.

        """
        parts = []
        for size in in_parts(count, at_once(PAIRS_AT_ONCE, self._model.image_shape)):
            batch = self._pairs.draw(size, factors, generator)
            parts.append((self.latents(batch.images_a), self.latents(batch.images_b), batch.shared))
        a, b, shared = (torch.cat(column) for column in zip(*parts, strict=True))
        return a, b, shared


class _AtEveryDraw(Exception):
    """Images that cannot be encoded once for all."""


class _Posteriors:
    """Images that are loaded as the encoder's posterior, `(n, 1 or 2, *latent_shape)`."""

    still = True

    def __init__(self, posteriors: Tensor, images: Images) -> None:
        self._posteriors, self._images = posteriors, images

    def __len__(self) -> int:
        return len(self._posteriors)

    def load(self, indices: Tensor, generator: torch.Generator | None) -> Tensor:
        return self._posteriors[indices]

    def name(self, index: int) -> str:
        return self._images.name(index)


class _Encoder:
    """Encodes whole sets of images, or reads their posteriors as an earlier start of the run kept them."""

    def __init__(self, model: FrozenModel, run: Run, draws: int) -> None:
        self._model, self._run, self._draws = model, run, draws
        self._digest = model.digest()
        self._bytes = 0
        # By identity, since several sources may have the same images; kept, so that no others get their identity.
        self._files: dict[int, tuple[Images, Path]] = {}
        self._done: dict[Path, Tensor] = {}

    def checked(self, images: Images) -> Images:
        """Return `images` if they can be encoded once and that pays; else raise `_AtEveryDraw`."""
        if not (knows(images, "still", "load") and images.still):  # type: ignore[attr-defined]
            raise _AtEveryDraw
        if id(images) not in self._files:
            key = hashlib.sha256(f"{self._digest} {images_digest(images)}".encode()).hexdigest()
            path = self._run.directory / "latents" / f"{key[:16]}.safetensors"
            if len(images) > self._draws and not path.exists():
                raise _AtEveryDraw
            if all(path != known for _, known in self._files.values()):
                self._check_memory(len(images))
            self._files[id(images)] = images, path
        return images

    def once(self, images: Images) -> Images:
        """The posteriors of `images`, which are checked here too: a source may have made them just now."""
        _, path = self._files[id(self.checked(images))]
        if path not in self._done:
            self._done[path] = self._encoded(images, path)
        return _Posteriors(self._done[path], images)

    def _shape(self, count: int) -> tuple[int, ...]:
        return (count, 2 if self._model.samples else 1, *self._model.latent_shape)

    def _check_memory(self, count: int) -> None:
        self._bytes += 4 * math.prod(self._shape(count))
        if self._bytes > MOST_BYTES:
            self._run.console.print(
                f"latents: {self._bytes / 1e9:.1f} GB, more than the {MOST_BYTES / 1e9:g} GB that are kept; images are "
                "encoded anew for every step",
                highlight=False,
            )
            raise _AtEveryDraw

    def _encoded(self, images: Images, path: Path) -> Tensor:
        shape, console = self._shape(len(images)), self._run.console
        if (kept := _read(path, shape)) is not None:
            return kept
        posteriors = self._encode(images, shape)
        console.print(f"latents: {len(images)} images encoded once, {posteriors.nbytes / 1e6:.1f} MB", highlight=False)
        if leads():
            try:
                _write(path, posteriors)
            except (OSError, SafetensorError) as error:  # only the next start is slower for it
                console.print(f"warning: latents are not kept for a next start: {error}")
        return posteriors

    @torch.no_grad()
    def _encode(self, images: Images, shape: tuple[int, ...]) -> Tensor:
        posteriors = torch.empty(shape)
        with late_bar("encoding", len(images), self._run.console) as advance:
            for rows in torch.arange(len(images)).split(ENCODED_AT_ONCE[self._run.device.type]):
                batch = images.load(rows, None).to(self._run.device)
                posteriors[rows] = self._model.posterior(batch).cpu()
                advance(len(rows))
        return posteriors


def _read(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """The posteriors kept at `path`; None where there are none, or none that are whole."""
    try:
        posteriors = load_file(path)["posterior"]
    except (OSError, KeyError, SafetensorError):
        return None
    return posteriors if tuple(posteriors.shape) == shape else None


def _write(path: Path, posteriors: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        save_file({"posterior": posteriors}, partial)
        partial.replace(path)
    except (OSError, SafetensorError):
        partial.unlink(missing_ok=True)
        raise
