"""What an interpretation of labelled pictures is worth, by independent classifiers and by true pictures."""

from collections.abc import Mapping

import torch
from iin_bundle import FactorLayout, Figure
from torch import Tensor

from iin_training.data.images import ImageArray
from iin_training.data.picture_sets import PictureSet
from iin_training.evaluation import Interpreter
from iin_training.flows import Flow
from iin_training.judging import Sees, share
from iin_training.models.classifier import Classifier
from iin_training.models.frozen import FrozenModel
from iin_training.run import Run

__all__ = ["judge_pictures"]

PAIRS = 2000  # of held-out pictures that swaps are measured on
SAMPLES = 2000  # from the prior


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

    Args:
        model: the frozen model, with a decoder.
        transform: T, in eval mode.
        layout: the factors of T.
        pictures: has the held-out pictures and what they show.
        judges: a classifier for each concept that can be judged; they never saw encoder, decoder or T.
        run: gives randomness and the device.

    """
    networks, generator = Interpreter(model, transform), run.generator("evaluation")
    images = ImageArray(pictures.held_out_images, value_range=model.value_range).load(
        torch.arange(len(pictures.held_out_images)), None
    )
    factors = networks.factors(images)
    figures: dict[str, Figure] = {}
    for concept, judge in judges.items():
        labels = torch.from_numpy(pictures.held_out_labels[concept])
        target = torch.randint(len(labels), (PAIRS,), generator=generator)
        source = _of_other_value(target, labels, generator)
        unrelated = torch.randperm(PAIRS, generator=generator)  # pictures beside which agreement is chance
        sees = Sees(judge, run.device)
        plain = sees(networks.images(factors[target]))
        ceiling, chance = share(plain == labels[target]), share(plain[unrelated] == labels[target])
        figures |= {
            f"judge_{concept}": Figure(
                value=share(sees(images) == labels),
                floor=_commonest(labels),
                meaning=f"independent classifier of {concept} on real held-out pictures; floor: the commonest value",
            ),
            f"reconstruction_{concept}": Figure(
                value=ceiling,
                ceiling=share(sees(images[target]) == labels[target]),
                floor=chance,
                meaning=f"judge sees the {concept} in the plain reconstruction; ceiling: in the real picture",
            ),
        }
        for part in layout if len(tuple(layout)) > 1 else ():
            where = layout.slice(part.name)
            mixed = factors[target].clone()
            mixed[:, where] = factors[source][:, where]
            seen = sees(networks.images(mixed))
            if part.name == concept:
                figures[f"swap_{concept}"] = Figure(
                    value=share(seen == labels[source]),
                    ceiling=ceiling,
                    floor=share(plain == labels[source]),
                    meaning=f"{concept} swapped: judge sees the source's {concept}; floor: nothing swapped",
                )
            else:
                figures[f"swap_{part.name}_{concept}_kept"] = Figure(
                    value=share(seen == labels[target]),
                    ceiling=ceiling,
                    floor=chance,
                    meaning=f"{part.name} swapped: judge sees the target's {concept}",
                )
        figures |= _prior_figures(networks, layout, concept, sees, generator)
    return figures | _counterfactual_figures(networks, layout, pictures, images, factors)


def _of_other_value(target: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Random pictures with other labels than those of `target`; there are at least two different ones."""
    source = torch.randint(len(labels), (len(target),), generator=generator)
    while (same := labels[source] == labels[target]).any():
        source[same] = torch.randint(len(labels), (int(same.sum()),), generator=generator)
    return source


def _prior_figures(
    networks: Interpreter, layout: FactorLayout, concept: str, sees: Sees, generator: torch.Generator
) -> dict[str, Figure]:
    """Whether the judge recognises samples, and whether the concept's factor decides what it sees."""
    first, second = (torch.randn(SAMPLES, layout.size, generator=generator).to(networks.device) for _ in range(2))
    logits = sees.logits(networks.images(first))
    seen, classes = logits.argmax(dim=1), logits.shape[1]
    figures = {
        f"prior_{concept}_confidence": Figure(
            value=float(logits.softmax(dim=1).amax(dim=1).mean()),
            floor=1 / classes,
            meaning=f"judge's mean probability of the {concept} that it sees in a sample",
        ),
        f"prior_{concept}_rarest": Figure(
            value=float(torch.bincount(seen, minlength=classes).min() * classes / SAMPLES),
            ceiling=1.0,
            floor=0.0,
            meaning=f"share of samples with the {concept} seen least often, relative to an equal share",
        ),
    }
    if concept in (part.name for part in layout):
        independent = sees(networks.images(second))
        second[:, layout.slice(concept)] = first[:, layout.slice(concept)]
        figures[f"prior_{concept}_agreement"] = Figure(
            value=share(sees(networks.images(second)) == seen),
            ceiling=1.0,
            floor=share(independent == seen),
            meaning=f"two samples with the same {concept} factor, all else drawn anew: judge sees the same {concept}",
        )
    return figures


def _counterfactual_figures(
    networks: Interpreter, layout: FactorLayout, pictures: PictureSet, images: Tensor, factors: Tensor
) -> dict[str, Figure]:
    """Swapped pictures against the true ones, where two concepts tell every held-out picture from the others."""
    names = [part.name for part in layout if part.name in pictures.held_out_labels]
    if len(names) != 2:
        return {}
    shown = torch.stack([torch.from_numpy(pictures.held_out_labels[name]) for name in names], dim=1)
    place = {tuple(row): index for index, row in enumerate(shown.tolist())}
    if len(place) < len(shown):
        return {}
    span = networks.model.value_range[1] - networks.model.value_range[0]

    def error(made: Tensor, real: Tensor) -> float:
        return float((made - real).abs().double().mean()) / span

    figures = {}
    for column, name in enumerate(names):
        found = []
        for target in range(len(shown)):
            for source in range(len(shown)):
                wanted = shown[target].clone()
                wanted[column] = shown[source, column]
                truth = place.get(tuple(wanted.tolist()))
                if truth is not None and truth != target and truth != source:
                    found.append((target, source, truth))
        if not found:
            continue
        target, source, truth = torch.tensor(found)[torch.linspace(0, len(found) - 1, PAIRS).long()].T
        where = layout.slice(name)
        mixed = factors[target].clone()
        mixed[:, where] = factors[source][:, where]
        real = images[truth]
        figures[f"swap_{name}_error"] = Figure(
            value=error(networks.images(mixed), real),
            ceiling=error(networks.images(factors[truth]), real),
            floor=error(networks.images(factors[target]), real),
            meaning=f"{name} swapped: difference from the real picture with the source's {name} and all else the "
            "target's (mean absolute, [0, 1]); ceiling: its plain reconstruction; floor: nothing swapped",
        )
    return figures


def _commonest(labels: Tensor) -> float:
    return float(torch.bincount(labels).max() / len(labels))
