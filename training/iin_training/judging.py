"""An independent classifier as the judge of whole sets of pictures, and what it says of samples from the prior."""

import numpy as np
import torch
from iin_bundle import FactorLayout, Figure
from torch import Tensor

from iin_training.evaluation import CHUNK, Interpreter, swapped
from iin_training.models.classifier import Classifier

__all__ = ["Sees", "of_other_value", "prior_figures", "rate", "swap_figure"]

SAMPLES = 2000  # from the prior


class Sees:
    """Applies a judge to whole sets of pictures, a chunk at a time."""

    def __init__(self, judge: Classifier, device: torch.device) -> None:
        """Work on `device`; `judge` is in eval mode."""
        self._judge, self._device = judge.to(device), device

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """`(N, classes)` on the CPU of images `(N, C, S, S)` in [-1, 1], anywhere."""
        return torch.cat([self._judge(part.to(self._device)).cpu() for part in images.split(CHUNK)])

    def __call__(self, images: Tensor) -> Tensor:
        """The class, `(N,)` on the CPU, from 0, seen in each of images `(N, C, S, S)` in [-1, 1]."""
        return self.logits(images).argmax(dim=1)


def rate(hits: Tensor) -> float:
    """How many of booleans, of any shape, are true, as a share in [0, 1]."""
    return float(hits.double().mean())


def of_other_value(target: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Random pictures that show something else.

    Args:
        target: numbers of pictures, `(n,)`.
        labels: what every picture shows, `(N,)`; at least two different values.
        generator: decides the draws.

    Returns:
        Numbers `(n,)` of pictures with other labels than those of `target`.

    """
    source = torch.randint(len(labels), (len(target),), generator=generator)
    while (same := labels[source] == labels[target]).any():
        source[same] = torch.randint(len(labels), (int(same.sum()),), generator=generator)
    return source


def swap_figure(
    concept: str, part: str, seen: Tensor, plain: Tensor, target: Tensor, source: Tensor, unrelated: Tensor
) -> dict[str, Figure]:
    """Whether the judge of `concept` sees what it should in targets that got the factor `part` of their sources.

    `seen` and `plain` are the classes, `(n,)`, that it sees in decoded swaps and in plain reconstructions of targets,
    `target` and `source` those that these show. `unrelated` numbers other targets, beside which agreement is chance.
    """
    ceiling = rate(plain == target)
    if part == concept:
        figure = Figure(
            value=rate(seen == source),
            ceiling=ceiling,
            floor=rate(plain == source),
            meaning=f"{concept} swapped: share of pictures in which the judge sees the source's {concept}; "
            "floor: without the swap",
        )
        return {f"swap_{concept}": figure}
    figure = Figure(
        value=rate(seen == target),
        ceiling=ceiling,
        floor=rate(plain[unrelated] == target),
        meaning=f"{part} swapped: share of pictures in which the judge sees the target's {concept}",
    )
    return {f"swap_{part}_{concept}_kept": figure}


def prior_figures(
    networks: Interpreter,
    layout: FactorLayout,
    concept: str,
    sees: Sees,
    plain: Tensor,
    classes: Tensor,
    generator: torch.Generator,
) -> dict[str, Figure]:
    """Whether the judge of `concept` recognises samples, and whether its factor alone decides what it sees.

    Args:
        networks: the model, whose images are in [-1, 1], and T.
        layout: the factors of T, with or without one for the concept.
        concept: what the judge was taught.
        sees: the judge.
        plain: the judge's logits of reconstructions, `(N, outputs)`.
        classes: those that it was taught, `(n,)`, different; it may have outputs of no class.
        generator: decides the samples.

    Returns:
        `confidence`, `rarest` and, where the concept has a factor, `agreement`.

    """
    first, second = (torch.randn(SAMPLES, layout.size, generator=generator).to(networks.device) for _ in range(2))
    logits = sees.logits(networks.images(first))
    seen = logits.argmax(dim=1)
    found = torch.bincount(seen, minlength=logits.shape[1])[classes]
    figures = {
        "confidence": Figure(
            value=_confidence(logits),
            ceiling=_confidence(plain),
            floor=1 / len(classes),
            meaning=f"mean probability that the judge gives to the {concept} that it sees in a sample from the prior; "
            "ceiling: in a plain reconstruction",
        ),
        "rarest": Figure(
            value=float(found.min() * len(classes) / SAMPLES),
            ceiling=_rarest_of_equal(len(classes)),
            floor=0.0,
            meaning=f"share of samples with the {concept} that the judge sees least often, relative to an equal share; "
            "ceiling: mean if each were equally likely; floor: never seen",
        ),
    }
    if concept in layout:
        alike = swapped(second, first, layout.slice(concept))
        figures["agreement"] = Figure(
            value=rate(sees(networks.images(alike)) == seen),
            ceiling=1.0,
            floor=rate(sees(networks.images(second)) == seen),
            meaning=f"pairs of samples that share the factor {concept} alone: how often the judge sees the same "
            f"{concept} in both; ceiling: always; floor: in pairs of independent samples",
        )
    return figures


def _rarest_of_equal(classes: int) -> float:
    """`rarest` of samples from a prior that favours no class: below 1, since some class is the rarest by chance."""
    drawn = np.random.default_rng(0).multinomial(SAMPLES, [1 / classes] * classes, size=1000)
    return float(drawn.min(axis=1).mean() * classes / SAMPLES)


def _confidence(logits: Tensor) -> float:
    """The mean, over `(N, classes)`, of the largest probability."""
    return float(logits.softmax(dim=1).amax(dim=1).mean())
