"""Whether a frozen model can be interpreted, tried on real images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from iin_training.models.frozen import FrozenModel

__all__ = ["Findings", "check_images", "check_interpretable"]

LEAST_IMAGES = 32
ALONE = 4  # images that are tried one by one
TOLERANCE = 1e-2  # of the outputs' standard deviation: more than kernels differ by, less than noise in a network
MOST_CONSTANT = 0.5  # share of the dimensions
DEQUANTISATION = 0.05  # noise where values repeat, as a share of the dimension's standard deviation
SMALLEST_SCALE = 1e-3  # of latents; ActNorm stretches no further
OUTSIDE = 0.1  # how far a decoder may leave the range of the images, as a share of the range, and how often


@dataclass(frozen=True)
class Findings:
    """What training has to know of the latents of a model that can be interpreted."""

    constant: int
    """Dimensions that are the same for all images given."""
    repeated: int
    """Dimensions that vary, but take one value again and again (a unit that is often off)."""
    noise_scale: Tensor
    """Standard deviation of the noise to add to latents while training, `latent_shape`; 0 where there is no need."""

    def dequantised(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        """`latents`, `(N, *latent_shape)`, with the noise added that training needs; never add it elsewhere."""
        if not self.noise_scale.any():
            return latents
        noise = torch.randn(latents.shape, generator=generator, device=generator.device).to(latents.device)
        return latents + noise * self.noise_scale.to(latents.device)


@torch.no_grad()
def check_interpretable(model: FrozenModel, batches: Iterable[Tensor]) -> Findings:
    """Try a frozen model on real images and refuse one whose latents a flow cannot learn.

    A dimension that is constant, or often takes one and the same value, has no density: its likelihood would
    grow without bound while T squeezes ever harder. Such dimensions are kept, since leaving them out would lose
    what they say of other images, and T is trained on latents with a little noise there (Theis et al., ICLR
    2016: the noise bounds the likelihood). T stays exactly invertible, and serves latents without noise.

    Args:
        model: with its parts on one device.
        batches: images `(n, C, H, W)` as the model was trained on, as many at a time as memory has room for, at least
            32 in all; some hundred show rare values too.

    Returns:
        What to add to latents while T is trained.

    Raises:
        ValueError: naming the part at fault, with what was expected, what was found and what to do.

    """
    drawn, generator = list[Tensor](), torch.Generator().manual_seed(0)
    for images in batches:
        check_images(model, images, "images")
        images = images.to(model.device)
        latents = _check_outputs("encoder", model.encode, images, "latents")
        if model.has_decoder:
            _check_range(model, _check_outputs("decoder", model.decode, latents, "images"))
        if model.head is not None:
            _check_probabilities(_check_outputs("head", model.classify, latents, "probabilities"))
        if model.samples:
            latents = model.draw(images, generator)
            _check_finite("encoder", latents, "latents drawn from (mean, log_variance)")
        drawn.append(latents)
    if (count := sum(map(len, drawn))) < LEAST_IMAGES:
        raise ValueError(
            f"images: expected at least {LEAST_IMAGES}, got {count}; give a batch of those T will be trained on"
        )
    return _findings(torch.cat(drawn))


def check_images(model: FrozenModel, images: Tensor, field: str) -> None:
    """Refuse images, called `field`, that the model was not made for, before it meets them.

    Raises:
        ValueError: where they are not float32 of `(N, *image_shape)`, or leave the model's value_range.

    """
    given = tuple(images.shape[1:])
    if given != model.image_shape or images.dtype != torch.float32:
        raise ValueError(
            f"{field}: expected float32 images of {model.image_shape}, the model's image_shape, got {images.dtype} of "
            f"{given}; give ImageFiles the model's size and channels, or correct image_shape"
        )
    low, high = model.value_range
    least, most, slack = float(images.min()), float(images.max()), 1e-3 * (high - low)
    if not (low - slack <= least and most <= high + slack):
        raise ValueError(
            f"{field}: expected values in [{low:g}, {high:g}], the model's value_range, got {least:.3g} to {most:.3g}; "
            "give the images the value_range of the model's own training, and the model the same"
        )


def _check_outputs(role: str, run: Callable[[Tensor], Tensor], items: Tensor, what: str) -> Tensor:
    """The outputs, which are finite, the same every time, and a row for each item that depends on this item alone."""
    outputs = run(items)
    _check_finite(role, outputs, what)
    scale = float(outputs.std())
    again = run(items)
    if not _near(again, outputs, scale):
        raise ValueError(
            f"{role}: expected the same {what} for the same batch, got a difference of {_apart(again, outputs)}; take "
            "out what draws random numbers in eval mode (functional.dropout wants training=self.training)"
            + ("; an encoder that samples should return (mean, log_variance) instead" if role == "encoder" else "")
        )
    for index in range(min(ALONE, len(items))):
        try:
            alone = run(items[index : index + 1])
        except Exception as error:  # whatever a stranger's forward raises
            raise ValueError(
                f"{role}: expected {what} for a batch of 1, got: {error}; let it take batches of any size "
                "(normalisation: with fixed statistics; squeeze(1) rather than squeeze())"
            ) from error
        if alone.shape != outputs[:1].shape:
            raise ValueError(
                f"{role}: expected shape {list(outputs[:1].shape)} for a batch of 1, got {list(alone.shape)}; its "
                "shape may depend on nothing but the batch size (squeeze(1) rather than squeeze())"
            )
        if not _near(alone, outputs[index : index + 1], scale):
            raise ValueError(
                f"{role}: expected {what} that do not depend on the other items of the batch, got a difference of "
                f"{_apart(alone, outputs[index : index + 1])} alone; use fixed statistics for normalisation "
                "(BatchNorm with track_running_stats=True, in eval mode)"
            )
    return outputs


def _check_finite(role: str, outputs: Tensor, what: str) -> None:
    if bad := int((~outputs.isfinite()).flatten(1).any(dim=1).sum()):
        raise ValueError(
            f"{role}: expected finite {what}, got NaN or infinity for {bad} of {len(outputs)}; check its weights, and "
            "that the images are scaled as for its own training"
        )


def _near(first: Tensor, second: Tensor, scale: float) -> bool:
    return first.shape == second.shape and float((first - second).abs().max()) <= TOLERANCE * scale


def _apart(first: Tensor, second: Tensor) -> str:
    if first.shape != second.shape:
        return f"shape ({list(first.shape)} and {list(second.shape)})"
    return f"{float((first - second).abs().max()):.3g}"


def _check_probabilities(given: Tensor) -> None:
    if float(given.min()) < 0 or float(given.max()) > 1:
        raise ValueError(
            f"head: expected probabilities in [0, 1], got values from {float(given.min()):.3g} to "
            f"{float(given.max()):.3g}; if they are logits, give FrozenModel head_gives='logits'"
        )


def _check_range(model: FrozenModel, decoded: Tensor) -> None:
    low, high = model.value_range
    slack = OUTSIDE * (high - low)
    outside = float(((decoded < low - slack) | (decoded > high + slack)).float().mean())
    if outside > OUTSIDE:
        raise ValueError(
            f"decoder: expected images in value_range, [{low:g}, {high:g}], got {outside:.0%} of the values outside it "
            f"(from {float(decoded.min()):.3g} to {float(decoded.max()):.3g}); let it end in what brings its images "
            "into the range of the encoder's"
        )


def _findings(latents: Tensor) -> Findings:
    shape = latents.shape[1:]
    rows = latents.flatten(1).double().unique(dim=0)  # an image given twice is no reason for noise
    if len(rows) < LEAST_IMAGES:
        raise ValueError(
            f"images: expected at least {LEAST_IMAGES} with latents of their own, got {len(rows)} of {len(latents)}; "
            "give different images, or a model that tells these apart"
        )
    std, mean = torch.std_mean(rows, dim=0)
    scale = std[std > 0].median() if (std > 0).any() else std.new_zeros(())
    constant = std <= 1e-6 * (mean.abs() + scale)  # as far as float32 can tell
    count, size = int(constant.sum()), len(std)
    if size - count < 2 or count > MOST_CONSTANT * size:
        raise ValueError(
            f"encoder: expected latents that vary from image to image, got {count} of {size} dimensions that are "
            f"constant over {len(latents)} images; choose another layer (before an activation that is mostly off)"
        )
    if scale < SMALLEST_SCALE:
        raise ValueError(
            f"encoder: expected latents with standard deviations of about 1, got {float(scale):.2g} for the middle "
            "one; multiply them by a constant at the encoder's end, and divide where decoder and head begin"
        )
    ordered = rows.sort(dim=0).values
    repeated = (ordered[2:] == ordered[:-2]).any(dim=0) & ~constant  # three times: no chance among float32 values
    noise = DEQUANTISATION * torch.where(constant, scale, torch.where(repeated, std, torch.zeros_like(std)))
    return Findings(count, int(repeated.sum()), noise.float().reshape(shape))
