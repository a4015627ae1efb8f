"""What an interpretation of coloured digits is worth in the eyes of an independent classifier."""

import torch
from iin_bundle import FactorLayout, Figure
from torch import Tensor

from iin_training.data.colour import draw, measure_colour, random_colours
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.evaluation import Interpreter
from iin_training.flows import Flow
from iin_training.judging import Sees, share
from iin_training.models.classifier import Classifier
from iin_training.models.frozen import FrozenModel
from iin_training.run import Run

__all__ = ["classifier_figures", "judge_digits"]

PAIRS = 4000  # pairs of held-out pictures that swaps are measured on
SAMPLES = 2000  # samples from the prior
RESPONSES = 1000  # draws of a factor


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
    networks, sees = Interpreter(model, transform), Sees(judge, run.device)
    generator = run.generator("evaluation")
    # Drawn, since the first pictures of a set need not be like the others: the first of MNIST's test set are harder.
    target = torch.randperm(len(data), generator=generator)[torch.arange(PAIRS) % len(data)]
    digit = data.labels[target]
    classes = digit.unique()
    others = torch.randint(1, len(classes), (PAIRS,), generator=generator)
    other_digit = classes[(torch.searchsorted(classes, digit) + others) % len(classes)]
    source = data.of_classes(other_digit, generator)
    unrelated = torch.randperm(PAIRS, generator=generator)  # pictures beside which agreement is chance
    images, other = (draw(data.grey[chosen], random_colours(PAIRS, generator)) for chosen in (target, source))
    colour, other_colour = measure_colour(images), measure_colour(other)
    factors, other_factors = networks.factors(images), networks.factors(other)

    def swapped(name: str) -> tuple[Tensor, Tensor]:
        """Digits and colours seen after the swap of one factor."""
        mixed = factors.clone()
        mixed[:, layout.slice(name)] = other_factors[:, layout.slice(name)]
        pictures = networks.images(mixed)
        return sees(pictures), measure_colour(pictures)

    plain = networks.images(factors)
    plain_digit, plain_colour = sees(plain), measure_colour(plain)
    digit_after_digit, colour_after_digit = swapped("digit")
    digit_after_colour, colour_after_colour = swapped("colour")
    digit_after_residual, colour_after_residual = swapped("residual")
    accuracy_of_judge = share(sees(images) == digit)
    ceiling, chance = share(plain_digit == digit), share(plain_digit[unrelated] == digit)
    least, most = _distance(plain_colour, colour), _distance(colour, other_colour)

    def accuracy(value: float, meaning: str) -> Figure:
        return Figure(value=value, ceiling=ceiling, floor=chance, meaning=meaning)

    def colour_error(value: float, meaning: str) -> Figure:
        return Figure(value=value, ceiling=least, floor=most, meaning=meaning + " (mean absolute, [0, 1])")

    figures = {
        "judge_accuracy": Figure(
            value=accuracy_of_judge,
            floor=share(digit[unrelated] == digit),
            meaning="independent classifier on real held-out pictures",
        ),
        "reconstruction_digit": Figure(
            value=ceiling,
            ceiling=accuracy_of_judge,
            floor=chance,
            meaning="judge sees the digit in the plain reconstruction; ceiling: in the real picture",
        ),
        "swap_digit": accuracy(share(digit_after_digit == other_digit), "digit swapped: judge sees the source's digit"),
        "swap_digit_colour_drift": colour_error(
            _distance(colour_after_digit, colour), "digit swapped: colour against the target's"
        ),
        "swap_colour_error": colour_error(
            _distance(colour_after_colour, other_colour), "colour swapped: colour against the source's"
        ),
        "swap_colour_digit_kept": accuracy(
            share(digit_after_colour == digit), "colour swapped: judge sees the target's digit"
        ),
        "swap_residual_digit_kept": accuracy(
            share(digit_after_residual == digit), "residual swapped: judge sees the target's digit"
        ),
        "swap_residual_colour_drift": colour_error(
            _distance(colour_after_residual, colour), "residual swapped: colour against the target's"
        ),
    }
    return figures | _prior_figures(networks, sees, layout, generator, plain)


def _prior_figures(
    networks: Interpreter, sees: Sees, layout: FactorLayout, generator: torch.Generator, plain: Tensor
) -> dict[str, Figure]:
    """Whether the judge recognises samples, and whether the digit factor alone decides what it sees."""

    def confidence(pictures: Tensor) -> float:
        return float(sees.logits(pictures).softmax(dim=1).amax(dim=1).mean())

    first, second = (torch.randn(SAMPLES, layout.size, generator=generator).to(networks.device) for _ in range(2))
    where = layout.slice("digit")
    independent = sees(networks.images(second))
    second[:, where] = first[:, where]
    pictures = networks.images(first)
    seen = sees(pictures)
    return {
        "prior_agreement": Figure(
            value=share(sees(networks.images(second)) == seen),
            ceiling=1.0,
            floor=share(independent == seen),
            meaning="two samples with the same digit factor, all else drawn anew: judge sees the same digit",
        ),
        "prior_confidence": Figure(
            value=confidence(pictures),
            ceiling=confidence(plain),
            floor=1 / sees.logits(pictures[:1]).shape[1],
            meaning="judge's mean probability of the digit it sees in a sample; ceiling: in a reconstruction",
        ),
    }


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
            value=share(seen == data.labels),
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
