"""Train classifiers of coloured digits: the independent judge, and the one whose hidden layer is interpreted."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from iin_training.config import HiddenClassifier, Judge
from iin_training.models.classifier import Classifier, TrunkClassifier
from iin_training.processes import average_gradients, share
from iin_training.run import Run

__all__ = ["Labelled", "train_hidden_classifier", "train_judge"]

Network = TypeVar("Network", bound=nn.Module)
Labelled = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
"""Makes n images `(n, C, S, S)` in [-1, 1] and their classes `(n,)` from a generator."""


def train_judge(
    config: Judge, draw: Labelled, *, image_shape: tuple[int, int, int], classes: int, run: Run, stage: str = "judge"
) -> Classifier:
    """The judge, in eval mode, for images of `image_shape`, (C, S, S); trained apart from every other network.

    `stage` is the name of the stage, where there are several judges.
    """
    channels, image_size, _ = image_shape
    with run.fixed_randomness(stage):
        model = Classifier(image_size=image_size, channels=channels, classes=classes, width=config.width)
    return _train(stage, config, model, draw, run)


def train_hidden_classifier(
    config: HiddenClassifier, draw: Labelled, *, image_size: int, classes: int, run: Run
) -> TrunkClassifier:
    """The classifier that is interpreted, in eval mode and frozen; see `train_judge`."""
    with run.fixed_randomness("classifier"):
        model = TrunkClassifier(
            image_size=image_size, channels=3, classes=classes, width=config.width, latent_size=config.latent_size
        )
    return _train("classifier", config, model, draw, run).requires_grad_(False)


def _train(stage: str, config: Judge | HiddenClassifier, model: Network, draw: Labelled, run: Run) -> Network:
    """`model` trained on labelled pictures by cross entropy."""
    model.to(run.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch lacks the overload
    optimiser = torch.optim.AdamW(model.parameters(), betas=config.optimiser.betas, weight_decay=0.01, fused=True)
    for step in run.steps(stage, model, optimiser, config.optimiser, asdict(config)):
        images, labels = share(*draw(config.optimiser.batch_size, run.generator(stage, step)))
        with run.fixed_randomness(stage, step):  # dropout draws from the global generator
            logits = model(images.to(run.device, memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits, labels.to(run.device))
        run.record(stage, step, loss=loss)  # before the update, which a loss that is not finite would spoil
        optimiser.zero_grad()
        loss.backward()
        average_gradients(model.parameters())
        if config.optimiser.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimiser.clip_norm)
        optimiser.step()
    return model.eval()
