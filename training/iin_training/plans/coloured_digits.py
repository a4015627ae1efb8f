"""From the recipes for coloured digits to what is interpreted: an autoencoder, or the hidden layer of a classifier."""

from dataclasses import asdict
from typing import Any

import torch
from iin_bundle import FactorLayout, Figure

from iin_training.config import ClassifierRecipe, Recipe, deciding
from iin_training.data.augmentation import STILL
from iin_training.data.colour import draw, random_colours
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.data.digits import load_digits
from iin_training.flows import Flow
from iin_training.judged_digits import classifier_figures, judge_digits
from iin_training.models.autoencoder import freeze
from iin_training.models.frozen import FrozenModel
from iin_training.pairs.digits import DigitPairs
from iin_training.plans.held_out import naming_held_out, told_of_data
from iin_training.run import Run
from iin_training.stages.classifiers import train_hidden_classifier, train_judge
from iin_training.stages.first_stage import check_first_stage, fetch_first_stage, train_first_stage
from iin_training.stages.transform import given_sizes
from iin_training.subject import EXAMPLES, PREVIEWS, Subject

__all__ = ["DigitsPlan"]


class DigitsPlan:
    """A recipe with its data loaded: it runs the stages before T."""

    def __init__(self, recipe: Recipe | ClassifierRecipe) -> None:
        """Load the data."""
        self._recipe = recipe
        data = recipe.data
        self._digits = load_digits(data.idx_dir, held_out=data.held_out, seed=recipe.seed, source=data.source)

    @property
    def stages(self) -> set[str]:
        """Names of all that is trained before T, as checkpoints bear them."""
        return {"judge", "first_stage"} if isinstance(self._recipe, Recipe) else {"classifier"}

    def inputs(self) -> dict[str, Any]:
        """What every stage depends on: the data, wherever it was read from."""
        data = asdict(self._recipe.data) | {"idx_dir": None, "sha256": self._digits.sha256}
        del data["source"]
        return {"data": data}

    def identity(self) -> dict[str, Any]:
        """What decides the result of the whole run."""
        return {"recipe": deciding(self._recipe), **self.inputs()}

    def prepare(self, run: Run) -> Subject:
        """Train the networks that come before T, or take them from their checkpoints."""
        recipe, digits, size = self._recipe, self._digits, self._recipe.data.image_size
        run.console.print(told_of_data(digits.name, digits.images, digits.held_out_images))
        data = ColouredDigits(digits.images, digits.labels, size=size, augmentation=recipe.data.augmentation)
        held_out = ColouredDigits(digits.held_out_images, digits.held_out_labels, size=size, augmentation=STILL)
        # Settings that cannot work and downloads that fail are told of before anything is trained.
        pairs = DigitPairs(data, asdict(recipe.pairs))
        with naming_held_out(len(held_out)):
            held_out_pairs = DigitPairs(held_out, {"digit": 1.0, "colour": 1.0})
        network = recipe.autoencoder if isinstance(recipe, Recipe) else recipe.classifier
        if given_sizes(recipe.transform, network.latent_size, pairs.concepts) is None:
            pairs.check_estimable()
        if isinstance(recipe, Recipe):
            check_first_stage(recipe.autoencoder, size)
            fetch_first_stage(recipe.autoencoder, run)
            judge = train_judge(recipe.judge, data.batch, image_shape=(3, size, size), classes=digits.classes, run=run)
            autoencoder = train_first_stage(
                recipe.autoencoder,
                lambda count, generator: data.batch(count, generator)[0],
                image_shape=(3, size, size),
                run=run,
            )
            model = freeze(autoencoder)
        else:
            how = recipe.classifier
            classifier = train_hidden_classifier(how, data.batch, image_size=size, classes=digits.classes, run=run)
            model = FrozenModel(
                classifier.trunk, head=classifier.head, image_shape=(3, size, size), value_range=(-1.0, 1.0)
            )

        classes = data.labels.unique()

        def measure(model: FrozenModel, flow: Flow, layout: FactorLayout) -> dict[str, Figure]:
            if isinstance(recipe, Recipe):
                return judge_digits(model, flow, judge, layout, held_out, classes, run)
            return classifier_figures(model, flow, layout, held_out, classes, run)

        generator = run.generator("previews")
        chosen = torch.randperm(len(held_out), generator=generator)[torch.arange(EXAMPLES) % len(held_out)]
        return Subject(
            model=model,
            pairs=pairs,
            held_out=held_out_pairs,
            examples=draw(held_out.grey[chosen], random_colours(len(chosen), generator)),
            captions=tuple(f"digit-{int(label)}" for label in held_out.labels[chosen[:PREVIEWS]]),
            data_set=digits.name,
            data_set_sha256=digits.sha256,
            measure=measure,
        )
