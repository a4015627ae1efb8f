"""Train a network that re-draws pictures in the style of sketches, and what it is trained for."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from iin_training.config import Optimiser
from iin_training.data.images import Pictures
from iin_training.models.painter import Painter
from iin_training.models.perceptual import FeatureNetwork
from iin_training.run import Run

__all__ = ["SETTINGS", "StyleTransfer", "load_pictures", "train_painter"]

DEPTHS = 2  # of VGG16's five; what lies deeper sees 32 pixels as a few numbers, and costs most of the time
PLACES = 16  # a side, where features are compared
COLOURS = 256  # pixels of a picture whose colours are compared
ALIKE = 0.1  # distance, of features or colours, at which two places count as different
FORTH = 0.75  # weight of "the picture's places are in the sketch" against "the sketch's are in the picture"
NEAR = 0.3  # distance at which a colour counts as another one
COLOUR_WEIGHT = 3.0  # of distances between colours, beside those between features
AMOUNT_WEIGHT = 3.0  # of how much there is of each colour
SETTINGS = (DEPTHS, PLACES, COLOURS, ALIKE, FORTH, NEAR, COLOUR_WEIGHT, AMOUNT_WEIGHT)
"""All that decides what a painter is trained for besides its arguments."""


class StyleTransfer(nn.Module):
    """How far pictures are from the style of a sketch, and from what they showed before they were re-drawn.

    - Style: at every place of the picture, the features of a frozen VGG16 should be like those somewhere in the
      sketch, and the reverse, by cosine distance; the same for colours, by Euclidean distance; and there should be as
      much of each colour. Rare places count as much as common ones, or an empty background would decide everything.
    - Content: places that were like each other should still be so, whatever their style. For each place, the cosine
      distances to all others, divided by their sum, should stay.

    Matching Gram matrices, as Gatys et al. (CVPR 2016) do, rewarded ink spread thinly over the background of small
    pictures. Source: Kolkin, Salavon, Shakhnarovich, Style transfer by relaxed optimal transport and self-similarity
    (CVPR 2019); of the two directions a weighted mean is taken here instead of the larger one.
    """

    _features: Tensor
    _weights: Tensor
    _palette: Tensor
    _palette_weights: Tensor

    def __init__(self, sketches: Tensor) -> None:
        """Look at `sketches`, `(S, C, H, W)` in [-1, 1], each a style."""
        super().__init__()
        self._network = FeatureNetwork("vgg16")
        features, palette = self._seen(sketches), _colours(sketches)
        self.register_buffer("_features", features)
        self.register_buffer("_weights", _rarity(_cosine(features, features)))
        self.register_buffer("_palette", palette)
        self.register_buffer("_palette_weights", _rarity(torch.cdist(palette, palette)))

    def forward(self, drawn: Tensor, images: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """Compare.

        Args:
            drawn: pictures `(N, C, H, W)` in [-1, 1].
            images: what they show, likewise; where there are M of them, each M of `drawn` show them in turn.
            style: numbers of the sketches that they should be like, `(N,)`.

        Returns:
            Distance from the sketch's style and from the content, each `(N,)`, at least 0; differentiable in `drawn`.

        """
        times = len(drawn) // len(images)
        with torch.no_grad():
            before, palette = self._seen(images), _colours(images)
            rare, likeness = _rarity(_cosine(before, before)).repeat(times, 1), _likeness(before).repeat(times, 1, 1)
            rare_colours = _rarity(torch.cdist(palette, palette)).repeat(times, 1)
        seen, colours = self._seen(drawn), _colours(drawn)
        wanted, wanted_colours = self._features[style], self._palette[style]
        features = _both_ways(_cosine(seen, wanted), rare, self._weights[style])
        distances, weights = torch.cdist(colours, wanted_colours), self._palette_weights[style]
        in_colours = _both_ways(distances, rare_colours, weights)
        amount = (weights * (_share(distances) - _share(torch.cdist(wanted_colours, wanted_colours))).abs()).sum(dim=1)
        content = (_likeness(seen) - likeness).abs().sum(dim=1).mean(dim=1)
        return features + COLOUR_WEIGHT * in_colours + AMOUNT_WEIGHT * amount, content

    def _seen(self, pictures: Tensor) -> Tensor:
        """Features of unit length at evenly spaced places, `(N, PLACES ** 2, D)`."""
        maps = self._network(pictures, DEPTHS)
        maps = [functional.interpolate(found, (PLACES, PLACES), mode="bilinear", antialias=True) for found in maps]
        together: Tensor = torch.cat([functional.normalize(found, dim=1) for found in maps], dim=1) / DEPTHS**0.5
        return together.flatten(2).transpose(1, 2)


def _colours(pictures: Tensor) -> Tensor:
    """Colours in [0, 1] of some pixels, `(N, at most COLOURS, C)`."""
    pixels = ((pictures + 1) / 2).flatten(2).transpose(1, 2)
    # Anywhere: every second one would leave the network free to draw stripes.
    chosen = torch.randperm(pixels.shape[1], generator=torch.Generator().manual_seed(0))[:COLOURS]
    return pixels[:, chosen.to(pictures.device)]


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine distances of features of unit length, `(N, A, D)` and `(N, B, D)`: `(N, A, B)`."""
    return 1 - first @ second.transpose(1, 2)


def _rarity(distances: Tensor) -> Tensor:
    """Weights `(N, P)` of sum 1 by which rare places count as much as common ones, from distances `(N, P, P)`."""
    rarity = 1 / (-distances / ALIKE).exp().sum(dim=2)
    return rarity / rarity.sum(dim=1, keepdim=True)


def _share(distances: Tensor) -> Tensor:
    """Of each colour of the sketch, `(N, B)`, how much there is in a picture, from distances `(N, A, B)`."""
    return (-distances / NEAR).exp().mean(dim=1)


def _both_ways(distances: Tensor, weights_a: Tensor, weights_b: Tensor) -> Tensor:
    """Mean distance to the nearest one, of rows and of columns: `(N, A, B)` to `(N,)`."""
    forth = (weights_a * distances.amin(dim=2)).sum(dim=1)
    back = (weights_b * distances.amin(dim=1)).sum(dim=1)
    return FORTH * forth + (1 - FORTH) * back


def _likeness(features: Tensor) -> Tensor:
    """For each of coarser places, its distances to all others as shares of their sum; `(N, PLACES ** 2, D)` given."""
    maps = features.transpose(1, 2).unflatten(2, (PLACES, PLACES))
    coarse = functional.normalize(functional.avg_pool2d(maps, 2), dim=1).flatten(2).transpose(1, 2)
    distances = _cosine(coarse, coarse)
    return distances / distances.sum(dim=1, keepdim=True).clamp_min(1e-6)


def load_pictures(images: Pictures, indices: Tensor) -> Tensor:
    """The images `indices`, not augmented, as `(n, C, H, W)` in [-1, 1], whatever their own range."""
    low, high = images.value_range
    return (images.load(indices, None) - low) * (2 / (high - low)) - 1


@torch.enable_grad()  # pairs are drawn, and so pictures re-drawn, where gradients are off
def train_painter(images: Pictures, sketches: Tensor, schedule: Optimiser, content: float, run: Run) -> Painter:
    """A frozen painter in eval mode.

    Args:
        images: pictures to practise on.
        sketches: `(S, C, H, W)` in [-1, 1], of the images' size.
        schedule: pictures an update are drawn in every style.
        content: weight of the content beside the style, at least 0.
        run: keeps checkpoints.

    """
    styles = len(sketches)
    with run.fixed_randomness("painter"):
        painter = Painter(channels=sketches.shape[1], styles=styles).to(run.device)
    transfer = None  # loaded where a step is left to do
    optimiser = torch.optim.Adam(painter.parameters(), betas=schedule.betas)
    for step in run.steps("painter", painter, optimiser, schedule, {"content": content, "steps": schedule.steps}):
        transfer = transfer or StyleTransfer(sketches).to(run.device)
        generator = run.generator("painter", step)
        chosen = torch.randint(len(images), (schedule.batch_size,), generator=generator)
        pictures = load_pictures(images, chosen).to(run.device)
        style = torch.arange(styles, device=run.device).repeat_interleave(schedule.batch_size)
        drawn = painter(pictures.repeat(styles, 1, 1, 1), style)
        style_loss, content_loss = (loss.mean() for loss in transfer(drawn, pictures, style))
        excess = (drawn - drawn.clamp(-1, 1)).abs().mean()  # what clipping would take away
        loss = style_loss + content * content_loss + excess
        run.record("painter", step, loss=loss, style=style_loss, content=content_loss)
        optimiser.zero_grad()
        loss.backward()
        if schedule.clip_norm:
            torch.nn.utils.clip_grad_norm_(painter.parameters(), schedule.clip_norm)
        optimiser.step()
    return painter.eval().requires_grad_(False)
