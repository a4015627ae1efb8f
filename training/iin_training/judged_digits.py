"""What an interpretation of coloured digits is worth in the eyes of an independent classifier."""

import torch
from iin_bundle import FactorLayout, Figure
from torch import Tensor

from iin_training.data.colour import draw, measure_colour, random_colours
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.evaluation import Interpreter
from iin_training.flows import Flow
from iin_training.models.classifier import Classifier
from iin_training.models.frozen import FrozenModel
from iin_training.run import Run

__all__ = ["classifier_figures", "judge_digits"]

PAIRS = 4000  # pairs of held-out pictures that swaps are measured on
SAMPLES = 2000  # samples from the prior
RESPONSES = 1000  # draws of a factor
CHUNK = 500  # pictures through the judge at a time


class _Judged(Interpreter):
    """The model, T and the judge together."""

    def __init__(self, model: FrozenModel, transform: Flow, judge: Classifier) -> None:
        super().__init__(model, transform)
        self._judge = judge.to(self.device)

    def judged(self, images: Tensor) -> Tensor:
        """The judge's logits, `(N, classes)`, on the CPU."""
        return torch.cat([self._judge(part.to(self.device)).cpu() for part in images.split(CHUNK)])

    def digits(self, images: Tensor) -> Tensor:
        """The digit that the judge sees in each image, `(N,)`."""
        return self.judged(images).argmax(dim=1)


@torch.no_grad()
def judge_digits(
    model: FrozenModel,
    transform: Flow,
    judge: Classifier,
    layout: FactorLayout,
    data: ColouredDigits,
    run: Run,
) -> dict[str, Figure]:
    """Measure everything on held-out pictures in random colours.

    A pair is a target and a source with other digits and other colours; a swap puts one factor of the
    source into the target. The judge never saw encoder, decoder or T.
    """
    models = _Judged(model, transform, judge)
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
    return figures | _prior_figures(models, layout, generator, plain)


def _prior_figures(
    models: _Judged, layout: FactorLayout, generator: torch.Generator, plain: Tensor
) -> dict[str, Figure]:
    """Whether the judge recognises samples, and whether the digit factor alone decides what it sees."""

    def confidence(pictures: Tensor) -> float:
        return float(models.judged(pictures).softmax(dim=1).amax(dim=1).mean())

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
            floor=1 / models.judged(pictures[:1]).shape[1],
            meaning="judge's mean probability of the digit it sees in a sample; ceiling: in a reconstruction",
        ),
    }


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())


def _distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().double().mean())


@torch.no_grad()
def classifier_figures(
    model: FrozenModel, transform: Flow, layout: FactorLayout, data: ColouredDigits, run: Run
) -> dict[str, Figure]:
    """The accuracy of the classifier that is interpreted, and the paper's network response analysis of one "7".

    Every factor in turn is drawn anew a thousand times, and the standard deviation of the predicted class is taken.
    Source: Esser, Rombach, Ommer (CVPR 2020), section 4.
    """
    assert model.head is not None
    interpreter = Interpreter(model, transform)
    generator = run.generator("evaluation")
    images = draw(data.grey, random_colours(len(data), generator))
    factors = interpreter.factors(images)
    seen = interpreter.classes(factors)
    figures = {
        "head_accuracy": Figure(
            value=_share(seen == data.labels),
            floor=1 / data.classes,
            meaning="class of held-out pictures, by the classifier that is interpreted",
        )
    }
    sevens = (data.labels == 7).nonzero()
    if not len(sevens):
        return figures
    one = factors[int(sevens[0])]
    uniform = float(torch.arange(data.classes).double().std(correction=0))
    for part in layout:
        where = layout.slice(part.name)
        draws = one.repeat(RESPONSES, 1)
        draws[:, where] = torch.randn(RESPONSES, part.size, generator=generator).to(draws.device)
        figures[f"{part.name}_response_of_a_7"] = Figure(
            value=float(interpreter.classes(draws).double().std()),
            ceiling=uniform,
            floor=0.0,
            meaning=f"{part.name} of one 7 drawn anew: standard deviation of the class; ceiling: of a uniform class",
        )
    return figures
