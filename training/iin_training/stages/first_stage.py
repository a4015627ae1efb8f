"""Train the autoencoder whose latents are interpreted."""

import math
from dataclasses import asdict

import torch

from iin_training import config as configs
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.models.autoencoder import Autoencoder
from iin_training.run import Run

__all__ = ["train_first_stage"]

FIXED_STATISTICS_FROM = 0.6  # share of the steps


def train_first_stage(config: configs.Autoencoder, data: ColouredDigits, *, image_size: int, run: Run) -> Autoencoder:
    """A frozen variational autoencoder in eval mode.

    Minimises the negative evidence lower bound with Laplace noise on the pixels,
    `|x - D(z)| / b + log(2 b)` summed over pixels plus `KL(q(z|x) || N(0, I))`, in nats a pixel.
    Source: Esser, Rombach, Ommer (CVPR 2020), supplement B, without its perceptual and adversarial terms.
    """
    schedule = config.optimiser
    with run.fixed_randomness("first_stage"):
        model = Autoencoder(image_size=image_size, channels=3, width=config.width, latent_size=config.latent_size)
    model.to(run.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch lacks the overload
    if config.noise_scale is not None:
        model.log_scale.data.fill_(math.log(config.noise_scale))
        model.log_scale.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(trained, betas=schedule.betas, fused=True)
    for step in run.steps("first_stage", model, optimiser, schedule, asdict(config)):
        # The end is trained with the fixed statistics of batch normalisation that will be used afterwards.
        model.train(step < FIXED_STATISTICS_FROM * schedule.steps)
        generator = run.generator("first_stage", step)
        images, _ = data.batch(schedule.batch_size, generator)
        images = images.to(run.device, memory_format=torch.channels_last)
        mean, log_variance = model.posterior(images)
        noise = torch.randn(mean.shape, generator=generator).to(run.device)
        decoded = model.decode(mean + noise * (0.5 * log_variance).exp())
        error = (decoded - images).abs().mean()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()
        reconstruction = error * (-model.log_scale).exp() + model.log_scale + math.log(2)
        loss = reconstruction + kl / images[0].numel()
        optimiser.zero_grad()
        loss.backward()
        if schedule.clip_norm:
            torch.nn.utils.clip_grad_norm_(trained, schedule.clip_norm)
        optimiser.step()
        run.record("first_stage", step, loss=loss, error=error, kl=kl)
    return model.eval().requires_grad_(False)
