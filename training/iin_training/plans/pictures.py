"""From a recipe for a set of pictures to what is interpreted: an autoencoder of them."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from iin_bundle import FactorLayout, Figure
from numpy.typing import NDArray
from torch import Tensor

from iin_training.config import PictureData, PictureRecipe, deciding
from iin_training.data.animals import load_animals
from iin_training.data.emoji import load_emoji
from iin_training.data.images import ImageArray
from iin_training.data.picture_sets import PictureSet, load_grey
from iin_training.flows import Flow
from iin_training.judged_pictures import judge_pictures
from iin_training.models.autoencoder import freeze
from iin_training.models.classifier import Classifier
from iin_training.models.effnet import fetch_weights
from iin_training.models.frozen import FrozenModel
from iin_training.pairs import Mixed, PairSource, SameLabel, Unrelated, Variants
from iin_training.plans.held_out import naming_held_out, told_of_data
from iin_training.run import Run
from iin_training.sample_quality import measure_samples
from iin_training.stages.classifiers import train_judge
from iin_training.stages.first_stage import check_first_stage, fetch_first_stage, train_first_stage
from iin_training.stages.transform import given_sizes
from iin_training.subject import EXAMPLES, PREVIEWS, Subject

__all__ = ["PicturesPlan"]


class PicturesPlan:
    """A recipe with its data loaded: it runs the stages before T."""

    def __init__(self, recipe: PictureRecipe) -> None:
        """Load the data."""
        self._recipe = recipe
        self._set = _load(recipe.data, recipe.seed)
        unknown = sorted(recipe.concepts.keys() - self._set.labels.keys())
        if unknown:
            raise ValueError(
                f"concepts: expected some of {', '.join(self._set.labels)}, which {self._set.name} tells of its "
                f"pictures, got {', '.join(unknown)}"
            )

    @property
    def stages(self) -> set[str]:
        """Names of all that is trained before T, as checkpoints bear them."""
        return {*(f"judge-{name}" for name in self._judged()), "first_stage"}

    def inputs(self) -> dict[str, Any]:
        """What every stage depends on: the data."""
        return {"data": asdict(self._recipe.data) | {"sha256": self._set.sha256}}

    def identity(self) -> dict[str, Any]:
        """What decides the result of the whole run."""
        return {"recipe": deciding(self._recipe), **self.inputs()}

    def fetch_for_figures(self) -> None:
        """Download what samples are measured by, where they will be; `RuntimeError` where that cannot be had."""
        if not self._recipe.concepts:
            fetch_weights()

    def prepare(self, run: Run) -> Subject:
        """Train the networks that come before T, or take them from their checkpoints."""
        recipe, pictures = self._recipe, self._set
        run.console.print(told_of_data(pictures.name, pictures.images, pictures.held_out_images))
        data = ImageArray(pictures.images, augmentation=recipe.data.augmentation)
        held_out = ImageArray(pictures.held_out_images)
        shape = (data.shape.channels, data.shape.height, data.shape.width)

        def draw(count: int, generator: torch.Generator) -> Tensor:
            return data.load(torch.randint(len(data), (count,), generator=generator), generator)

        # Settings that cannot work and downloads that fail are told of before anything is trained.
        pairs = self._pairs(data, pictures.labels)
        with naming_held_out(len(held_out)):
            held_out_pairs = self._pairs(held_out, pictures.held_out_labels)
        given_sizes(recipe.transform, recipe.autoencoder.latent_size, pairs.concepts)
        check_first_stage(recipe.autoencoder, data.shape.height)
        fetch_first_stage(recipe.autoencoder, run)
        judges = {name: self._train_judge(name, data, shape, run) for name in self._judged()}
        model = freeze(train_first_stage(recipe.autoencoder, draw, image_shape=shape, run=run))

        def measure(model: FrozenModel, flow: Flow, layout: FactorLayout) -> dict[str, Figure]:
            judged = judge_pictures(model, flow, layout, pictures, judges, run)
            # What has no concepts is there to be sampled from.
            return judged if recipe.concepts else judged | measure_samples(model, flow, pictures, run)

        generator = run.generator("previews")
        chosen = torch.randperm(len(held_out), generator=generator)[torch.arange(EXAMPLES) % len(held_out)]
        return Subject(
            model=model,
            pairs=pairs,
            held_out=held_out_pairs,
            examples=held_out.load(chosen, None),
            captions=tuple(self._caption(int(index)) for index in chosen[:PREVIEWS]),
            data_set=pictures.name,
            data_set_sha256=pictures.sha256,
            measure=measure,
        )

    def _judged(self) -> list[str]:
        """Concepts of several values, with training pictures of each, so that a classifier can learn it."""
        seen, unseen = self._set.labels, self._set.held_out_labels
        return [name for name in seen if len(set(unseen[name])) > 1 and set(unseen[name]) <= set(seen[name])]

    def _train_judge(self, concept: str, data: ImageArray, shape: tuple[int, int, int], run: Run) -> Classifier:
        labels = torch.from_numpy(self._set.labels[concept])

        def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            chosen = torch.randint(len(labels), (count,), generator=generator)
            return data.load(chosen, generator), labels[chosen]

        how, classes = self._recipe.judge, len(self._set.values[concept])
        return train_judge(how, draw, image_shape=shape, classes=classes, run=run, stage=f"judge-{concept}")

    def _pairs(self, images: ImageArray, labels: Mapping[str, NDArray[np.int64]]) -> PairSource:
        """Pairs of each concept and all but one, in the recipe's shares; unrelated pictures where there is none."""
        recipe = self._recipe
        if not recipe.concepts:
            return Unrelated(images)
        sources: list[tuple[PairSource, float]] = [
            (SameLabel(images, labels[name], name), weight) for name, weight in recipe.concepts.items()
        ]
        for name, weight in recipe.variants.items():
            others = np.stack([labels[other] for other in recipe.concepts if other != name], axis=1)
            groups = np.unique(others, axis=0, return_inverse=True)[1]
            sources.append((Variants(images, groups, name), weight))
        return Mixed(sources)

    def _caption(self, index: int) -> str:
        """What a held-out picture shows, as part of a file's name."""
        told = [f"{name}-{self._set.values[name][codes[index]]}" for name, codes in self._set.held_out_labels.items()]
        return re.sub(r"[^A-Za-z0-9-]+", "-", "-".join(told)).strip("-").lower()


def _load(data: PictureData, seed: int) -> PictureSet:
    if data.source in ("mnist", "fashion"):
        return load_grey(data.source)
    assert data.held_out is not None
    return {"animals": load_animals, "emoji": load_emoji}[data.source](held_out=data.held_out, seed=seed)
