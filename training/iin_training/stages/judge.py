"""Train the independent classifier that evaluation asks what it sees."""

from dataclasses import asdict

import torch
from torch.nn import functional

from iin_training.config import Judge
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.models.classifier import Classifier
from iin_training.run import Run

__all__ = ["train_judge"]


def train_judge(config: Judge, data: ColouredDigits, *, image_size: int, classes: int, run: Run) -> Classifier:
    """A classifier of coloured digits, in eval mode; trained apart from every other network."""
    with run.fixed_randomness("judge"):
        model = Classifier(image_size=image_size, channels=3, classes=classes, width=config.width)
    model.to(run.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch lacks the overload
    optimiser = torch.optim.AdamW(model.parameters(), betas=config.optimiser.betas, weight_decay=0.01, fused=True)
    for step in run.steps("judge", model, optimiser, config.optimiser, asdict(config)):
        images, labels = data.batch(config.optimiser.batch_size, run.generator("judge", step))
        with run.fixed_randomness("judge", step):  # dropout draws from the global generator
            logits = model(images.to(run.device, memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits, labels.to(run.device))
        optimiser.zero_grad()
        loss.backward()
        if config.optimiser.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimiser.clip_norm)
        optimiser.step()
        run.record("judge", step, loss=loss)
    return model.eval()
