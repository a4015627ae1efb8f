"""What the interpretation is worth: swaps, likelihood, samples and round trip on held-out pictures."""

from dataclasses import dataclass

import numpy as np
import torch
from iin_bundle import FactorLayout, Figure
from numpy.typing import NDArray
from torch import Tensor

from iin_training.data.colour import draw, measure_colour, random_colours
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.flows import Flow
from iin_training.models.autoencoder import Autoencoder
from iin_training.models.classifier import Classifier
from iin_training.run import Run

__all__ = ["Evaluation", "evaluate", "held_out_latents"]

PAIRS = 4000  # pairs of held-out pictures that swaps are measured on
SAMPLES = 2000  # samples from the prior
CHUNK = 500  # pictures through the networks at a time
LATENTS = 10_000  # held-out latents for round trip and likelihood
PROBABILITIES = np.array([0, 0.001, 0.01, *np.arange(0.05, 1, 0.05), 0.99, 0.999, 1])


@dataclass(frozen=True)
class Evaluation:
    """Everything that is measured before export."""

    figures: dict[str, Figure]
    """By name, for the manifest and the model card."""
    log_likelihoods: NDArray[np.float64]
    """Of held-out latents, `(LATENTS,)` in nats."""

    def quantiles(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Probabilities and log-likelihoods, in nats, at each."""
        values = np.quantile(self.log_likelihoods, PROBABILITIES)
        return tuple(PROBABILITIES.round(3).tolist()), tuple(values.tolist())


@torch.no_grad()
def held_out_latents(encoder: Autoencoder, data: ColouredDigits, run: Run) -> Tensor:
    """Latents `(LATENTS, D)` of held-out pictures, each drawn in several colours."""
    generator = run.generator("held_out")
    parts = []
    for start in range(0, LATENTS, CHUNK):
        chosen = torch.arange(start, min(start + CHUNK, LATENTS)) % len(data)
        images = draw(data.grey[chosen], random_colours(len(chosen), generator))
        parts.append(encoder.encode(images.to(run.device)))
    return torch.cat(parts)


class _Models:
    """The three networks together, on whole sets of pictures, a chunk at a time."""

    def __init__(self, encoder: Autoencoder, transform: Flow, judge: Classifier, device: torch.device) -> None:
        self.encoder, self.transform, self.judge, self.device = encoder, transform, judge, device

    def factors(self, images: Tensor) -> Tensor:
        parts = images.to(self.device).split(CHUNK)
        return torch.cat([self.transform(self.encoder.encode(part))[0] for part in parts])

    def images(self, factors: Tensor) -> Tensor:
        parts = factors.split(CHUNK)
        return torch.cat([self.encoder.decode(self.transform.inverse(part)[0]) for part in parts]).cpu()

    def digits(self, images: Tensor) -> Tensor:
        return torch.cat([self.judge(part) for part in images.to(self.device).split(CHUNK)]).cpu().argmax(dim=1)


@torch.no_grad()
def evaluate(
    encoder: Autoencoder,
    transform: Flow,
    judge: Classifier,
    layout: FactorLayout,
    data: ColouredDigits,
    run: Run,
) -> Evaluation:
    """Measure everything on held-out pictures in random colours.

    A pair is a target and a source with other digits and other colours; a swap puts one factor of the
    source into the target. The judge never saw encoder, decoder or T.
    """
    models = _Models(encoder, transform, judge, run.device)
    generator = run.generator("evaluation")
    target = torch.arange(PAIRS) % len(data)
    digit = data.labels[target]
    classes = digit.unique()
    others = torch.randint(1, len(classes), (PAIRS,), generator=generator)
    other_digit = classes[(torch.searchsorted(classes, digit) + others) % len(classes)]
    source = data.of_classes(other_digit, generator)
    unrelated = torch.randperm(PAIRS, generator=generator)  # pictures beside which agreement is chance
    images, other = (draw(data.grey[chosen], random_colours(PAIRS, generator)) for chosen in (target, source))
    colour, other_colour = measure_colour(images), measure_colour(other)
    factors, other_factors = models.factors(images), models.factors(other)

    def swapped(name: str) -> tuple[Tensor, Tensor]:
        """Digits and colours seen after the swap of one factor."""
        mixed = factors.clone()
        mixed[:, layout.slice(name)] = other_factors[:, layout.slice(name)]
        pictures = models.images(mixed)
        return models.digits(pictures), measure_colour(pictures)

    plain = models.images(factors)
    plain_digit, plain_colour = models.digits(plain), measure_colour(plain)
    digit_after_digit, colour_after_digit = swapped("digit")
    digit_after_colour, colour_after_colour = swapped("colour")
    digit_after_residual, colour_after_residual = swapped("residual")
    ceiling, chance = _share(plain_digit == digit), _share(plain_digit[unrelated] == digit)
    least, most = _distance(plain_colour, colour), _distance(colour, other_colour)

    def accuracy(value: float, meaning: str) -> Figure:
        return Figure(value=value, ceiling=ceiling, floor=chance, meaning=meaning)

    def colour_error(value: float, meaning: str) -> Figure:
        return Figure(value=value, ceiling=least, floor=most, meaning=meaning + " (mean absolute, [0, 1])")

    figures = {
        "judge_accuracy": Figure(
            value=_share(models.digits(images) == digit),
            floor=_share(digit[unrelated] == digit),
            meaning="independent classifier on real held-out pictures",
        ),
        "reconstruction_digit": accuracy(ceiling, "judge sees the digit in the plain reconstruction"),
        "swap_digit": accuracy(
            _share(digit_after_digit == other_digit), "digit swapped: judge sees the source's digit"
        ),
        "swap_digit_colour_drift": colour_error(
            _distance(colour_after_digit, colour), "digit swapped: colour against the target's"
        ),
        "swap_colour_error": colour_error(
            _distance(colour_after_colour, other_colour), "colour swapped: colour against the source's"
        ),
        "swap_colour_digit_kept": accuracy(
            _share(digit_after_colour == digit), "colour swapped: judge sees the target's digit"
        ),
        "swap_residual_digit_kept": accuracy(
            _share(digit_after_residual == digit), "residual swapped: judge sees the target's digit"
        ),
        "swap_residual_colour_drift": colour_error(
            _distance(colour_after_residual, colour), "residual swapped: colour against the target's"
        ),
    }
    figures |= _prior_figures(models, layout, generator, plain)
    latents = held_out_latents(encoder, data, run)
    outputs = [transform(part) for part in latents.split(CHUNK)]
    values, log_dets = (torch.cat(column).double().cpu() for column in zip(*outputs, strict=True))
    log_likelihoods = (-0.5 * (values.square() + np.log(2 * np.pi)).sum(dim=1) + log_dets).numpy()
    figures["held_out_log_likelihood"] = Figure(
        value=float(log_likelihoods.mean()), meaning=f"mean over {LATENTS} held-out latents, nats"
    )
    return Evaluation(figures, log_likelihoods)


def _prior_figures(
    models: _Models, layout: FactorLayout, generator: torch.Generator, plain: Tensor
) -> dict[str, Figure]:
    """Whether the judge recognises samples, and whether the digit factor alone decides what it sees."""

    def confidence(pictures: Tensor) -> float:
        parts = pictures.to(models.device).split(CHUNK)
        return float(torch.cat([models.judge(part).softmax(dim=1).amax(dim=1) for part in parts]).mean())

    first, second = (torch.randn(SAMPLES, layout.size, generator=generator).to(models.device) for _ in range(2))
    where = layout.slice("digit")
    independent = models.digits(models.images(second))
    second[:, where] = first[:, where]
    pictures = models.images(first)
    seen = models.digits(pictures)
    return {
        "prior_agreement": Figure(
            value=_share(models.digits(models.images(second)) == seen),
            ceiling=1.0,
            floor=_share(independent == seen),
            meaning="two samples with the same digit factor, all else drawn anew: judge sees the same digit",
        ),
        "prior_confidence": Figure(
            value=confidence(pictures),
            ceiling=confidence(plain),
            floor=1 / int(models.judge(pictures[:1].to(models.device)).shape[1]),
            meaning="judge's mean probability of the digit it sees in a sample; ceiling: in a reconstruction",
        ),
    }


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())


def _distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().double().mean())
