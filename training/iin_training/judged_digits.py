"""What an interpretation of coloured digits is worth: in the eyes of a judge, or of the classifier interpreted."""

import torch
from iin_bundle import FactorLayout, Figure
from torch import Tensor

from iin_training.data.colour import draw, measure_colour, random_colours
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.evaluation import Interpreter, swapped
from iin_training.flows import Flow
from iin_training.judging import Sees, of_other_value, prior_figures, rate, swap_figure
from iin_training.models.classifier import Classifier
from iin_training.models.frozen import FrozenModel
from iin_training.run import Run

__all__ = ["classifier_figures", "judge_digits"]

PAIRS = 4000  # pairs of held-out pictures that swaps are measured on
RESPONSES = 1000  # draws of a factor


@torch.no_grad()
def judge_digits(
    model: FrozenModel,
    transform: Flow,
    judge: Classifier,
    layout: FactorLayout,
    data: ColouredDigits,
    classes: Tensor,
    run: Run,
) -> dict[str, Figure]:
    """Measure everything on held-out pictures in random colours.

    A pair is a target and a source with other digits and other colours; a swap puts one factor of the
    source into the target. The judge was taught `classes`, `(n,)`, and never saw encoder, decoder
    or T.
    """
    networks, sees = Interpreter(model, transform), Sees(judge, run.device)
    generator = run.generator("evaluation")
    # Drawn, since the first pictures of a set need not be like the others: the first of MNIST's test set are harder.
    target = torch.randperm(len(data), generator=generator)[torch.arange(PAIRS) % len(data)]
    source = of_other_value(target, data.labels, generator)
    digit, other_digit = data.labels[target], data.labels[source]
    unrelated = torch.randperm(PAIRS, generator=generator)  # pictures beside which agreement is chance
    images, other = (draw(data.grey[chosen], random_colours(PAIRS, generator)) for chosen in (target, source))
    colour, other_colour = measure_colour(images), measure_colour(other)
    factors, other_factors = networks.factors(images), networks.factors(other)
    plain = networks.images(factors)
    logits = sees.logits(plain)
    plain_digit, plain_colour = logits.argmax(dim=1), measure_colour(plain)
    accuracy_of_judge = rate(sees(images) == digit)
    least, most = _distance(plain_colour, colour), _distance(colour, other_colour)

    def colour_error(value: float, meaning: str) -> Figure:
        return Figure(value=value, ceiling=least, floor=most, meaning=meaning + ", in [0, 1]")

    figures = {
        "judge_accuracy": Figure(
            value=accuracy_of_judge,
            floor=rate(digit[unrelated] == digit),
            meaning="accuracy of the judge, an independent classifier, on real held-out pictures",
        ),
        "reconstruction_digit": Figure(
            value=rate(plain_digit == digit),
            ceiling=accuracy_of_judge,
            floor=rate(plain_digit[unrelated] == digit),
            meaning="share of plain reconstructions in which the judge sees the digit; ceiling: of real pictures",
        ),
    }
    apart = "mean absolute difference of the colour from"
    for name in ("digit", "colour", "residual"):
        pictures = networks.images(swapped(factors, other_factors, layout.slice(name)))
        seen, seen_colour = sees(pictures), measure_colour(pictures)
        figures |= swap_figure("digit", name, seen, plain_digit, digit, other_digit, unrelated)
        if name == "colour":
            figures["swap_colour_error"] = colour_error(
                _distance(seen_colour, other_colour), f"colour swapped: {apart} the source's"
            )
        else:
            figures[f"swap_{name}_colour_drift"] = colour_error(
                _distance(seen_colour, colour), f"{name} swapped: {apart} the target's"
            )
    prior = prior_figures(networks, layout, "digit", sees, logits, classes, generator)
    return figures | {f"prior_{name}": figure for name, figure in prior.items()}


def _distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().double().mean())


@torch.no_grad()
def classifier_figures(
    model: FrozenModel, transform: Flow, layout: FactorLayout, data: ColouredDigits, classes: Tensor, run: Run
) -> dict[str, Figure]:
    """The accuracy of the classifier that is interpreted, and the paper's network response analysis of one "7".

    Each factor in turn is resampled a thousand times, and the standard deviation of the predicted class is taken.
    It was taught `classes`, `(n,)`; held-out pictures, `data`, need not show all of them.
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
            value=rate(seen == data.labels),
            floor=1 / len(classes),
            meaning="accuracy of the interpreted classifier on held-out pictures",
        )
    }
    sevens = (data.labels == 7).nonzero()
    if not len(sevens):
        return figures
    one = factors[int(sevens[0])]
    uniform = float(classes.double().std(correction=0))
    for part in layout:
        where = layout.slice(part.name)
        draws = one.repeat(RESPONSES, 1)
        draws[:, where] = torch.randn(RESPONSES, part.size, generator=generator).to(draws.device)
        figures[f"{part.name}_response_of_a_7"] = Figure(
            value=float(interpreter.classes(draws).double().std()),
            ceiling=uniform,
            floor=0.0,
            meaning=f"{part.name} of one 7 resampled from the prior: standard deviation of the predicted class; "
            "ceiling: of uniformly random classes; floor: of a class that never changes",
        )
    return figures
