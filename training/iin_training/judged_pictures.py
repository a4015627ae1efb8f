"""What an interpretation of labelled pictures is worth, by independent classifiers and by true pictures."""

import itertools
from collections.abc import Mapping

import torch
from iin_bundle import FactorLayout, Figure
from torch import Tensor

from iin_training.data.images import ImageArray
from iin_training.data.picture_sets import PictureSet
from iin_training.evaluation import Interpreter, swapped
from iin_training.flows import Flow
from iin_training.judging import Sees, of_other_value, prior_figures, rate, swap_figure
from iin_training.models.classifier import Classifier
from iin_training.models.frozen import FrozenModel
from iin_training.run import Run

__all__ = ["judge_pictures"]

PAIRS = 2000  # of held-out pictures that swaps are measured on


@torch.no_grad()
def judge_pictures(
    model: FrozenModel,
    transform: Flow,
    layout: FactorLayout,
    pictures: PictureSet,
    judges: Mapping[str, Classifier],
    run: Run,
) -> dict[str, Figure]:
    """Swap every concept between held-out pictures, and sample the prior.

    `model` has a decoder of images in [-1, 1], as the judges want them. `judges` has a classifier for each concept that
    can be judged; they never saw encoder, decoder or T.
    """
    networks, generator = Interpreter(model, transform), run.generator("evaluation")
    images = ImageArray(pictures.held_out_images).load(torch.arange(len(pictures.held_out_images)), None)
    factors = networks.factors(images)
    figures: dict[str, Figure] = {}
    for concept, judge in judges.items():
        labels = torch.from_numpy(pictures.held_out_labels[concept])
        target = torch.randint(len(labels), (PAIRS,), generator=generator)
        source = of_other_value(target, labels, generator)
        unrelated = torch.randperm(PAIRS, generator=generator)  # pictures beside which agreement is chance
        sees = Sees(judge, run.device)
        right = sees(images) == labels
        logits = sees.logits(networks.images(factors[target]))
        plain = logits.argmax(dim=1)
        figures |= {
            f"judge_{concept}": Figure(
                value=rate(right),
                floor=_commonest(labels),
                meaning=f"accuracy of the judge of {concept}, an independent classifier, on real held-out pictures; "
                "floor: share of the most frequent value",
            ),
            f"reconstruction_{concept}": Figure(
                value=rate(plain == labels[target]),
                ceiling=rate(right[target]),
                floor=rate(plain[unrelated] == labels[target]),
                meaning=f"share of plain reconstructions in which the judge sees the {concept}; "
                "ceiling: of real pictures",
            ),
        }
        for part in layout if len(layout.names) > 1 else ():
            mixed = swapped(factors[target], factors[source], layout.slice(part.name))
            seen = sees(networks.images(mixed))
            figures |= swap_figure(concept, part.name, seen, plain, labels[target], labels[source], unrelated)
        classes = torch.from_numpy(pictures.labels[concept]).unique()
        prior = prior_figures(networks, layout, concept, sees, logits, classes, generator)
        figures |= {f"prior_{concept}_{name}": figure for name, figure in prior.items()}
    return figures | _counterfactual_figures(networks, layout, pictures, images, factors)


def _counterfactual_figures(
    networks: Interpreter, layout: FactorLayout, pictures: PictureSet, images: Tensor, factors: Tensor
) -> dict[str, Figure]:
    """Swapped pictures against the true ones, where two concepts tell every held-out picture from the others."""
    names = [name for name in layout.names if name in pictures.held_out_labels]
    if len(names) != 2:
        return {}
    shown = torch.stack([torch.from_numpy(pictures.held_out_labels[name]) for name in names], dim=1)
    place = {tuple(row): index for index, row in enumerate(shown.tolist())}
    if len(place) < len(shown):
        return {}

    def error(made: Tensor, real: Tensor) -> float:
        return float((made - real).abs().double().mean()) / 2  # levels of [-1, 1]

    figures = {}
    for column, name in enumerate(names):
        found = []
        for target, source in itertools.product(range(len(shown)), repeat=2):
            wanted = shown[target].clone()
            wanted[column] = shown[source, column]
            truth = place.get(tuple(wanted.tolist()))
            if truth is not None and truth != target and truth != source:
                found.append((target, source, truth))
        if not found:
            continue
        target, source, truth = torch.tensor(found)[torch.linspace(0, len(found) - 1, PAIRS).long()].T
        mixed = swapped(factors[target], factors[source], layout.slice(name))
        real = images[truth]
        figures[f"swap_{name}_error"] = Figure(
            value=error(networks.images(mixed), real),
            ceiling=error(networks.images(factors[truth]), real),
            floor=error(networks.images(factors[target]), real),
            meaning=f"{name} swapped: mean absolute difference, in [0, 1], from the real picture with the source's "
            f"{name} and otherwise like the target; ceiling: its plain reconstruction; floor: without the swap",
        )
    return figures


def _commonest(labels: Tensor) -> float:
    return float(torch.bincount(labels).max() / len(labels))
