"""Train the autoencoder whose latents are interpreted."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from iin_training import config as configs
from iin_training.data.loading import Batches
from iin_training.models.autoencoder import Autoencoder
from iin_training.models.discriminator import PatchDiscriminator
from iin_training.models.perceptual import LEAST, PerceptualDistance, fetch_weights
from iin_training.processes import average, average_gradients, share
from iin_training.run import Run

__all__ = ["check_first_stage", "fetch_first_stage", "train_first_stage"]

FIXED_STATISTICS_FROM = 0.1  # share of the steps
LARGEST_WEIGHT = 1e4  # of the adversarial loss


def check_first_stage(config: configs.Autoencoder, image_size: int) -> None:
    """Refuse what pictures of `image_size` pixels a side cannot have: a `ValueError` that names the setting."""
    against, most = config.adversary, image_size.bit_length() - 1
    if against.weight and against.stages > most:
        raise ValueError(
            f"autoencoder.adversary.stages: expected at most {most} for pictures of {image_size}x{image_size}, whose "
            f"size each of them halves, got {against.stages}"
        )
    if config.perceptual != "none" and image_size < LEAST[config.perceptual]:
        raise ValueError(
            f"autoencoder.perceptual: expected none for pictures of {image_size}x{image_size}, got "
            f"{config.perceptual}, which wants at least {LEAST[config.perceptual]} pixels; take larger pictures"
        )


def fetch_first_stage(config: configs.Autoencoder, run: Run) -> None:
    """Download the perceptual network if there are updates left that need it; `RuntimeError` where that fails."""
    if config.perceptual != "none" and run.steps_done("first_stage") < config.optimiser.steps:
        fetch_weights()


def train_first_stage(
    config: configs.Autoencoder,
    draw: Callable[[int, torch.Generator], Tensor],
    *,
    image_shape: tuple[int, int, int],
    run: Run,
) -> Autoencoder:
    """A frozen variational autoencoder in eval mode.

    Minimises the negative evidence lower bound with Laplace noise on the pixels,
    `(|x - D(z)| + p) / b + log(2 b)` summed over pixels plus `KL(q(z|x) || N(0, I))`, in nats a pixel, with p a
    perceptual distance if `config` has one. An adversarial term, by a discriminator of patches with the hinge loss,
    joins in after a while if `config` has one.
    Source: Esser, Rombach, Ommer (CVPR 2020), supplement B.

    `draw` makes n images of `image_shape`, (C, S, S), in [-1, 1] from a generator.
    """
    schedule, against = config.optimiser, config.adversary
    model, adversary, smooth = _networks(config, image_shape, run)
    parts = {"autoencoder": model, "adversary": adversary, "average": smooth}
    kept = nn.ModuleDict({name: part for name, part in parts.items() if part is not None})
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    learning = trained + ([] if adversary is None else list(adversary.parameters()))
    optimiser = torch.optim.Adam(learning, betas=schedule.betas, fused=True)

    def prepare(step: int) -> tuple[Tensor, Tensor]:
        """The images of a step and the noise that their latents are drawn with."""
        generator = run.generator("first_stage", step)
        images = draw(schedule.batch_size, generator)
        return images, torch.randn(len(images), config.latent_size, generator=generator)

    perceptual = None  # loaded where a step is left to do
    batches = Batches(prepare, schedule.steps, config.workers)
    for step in run.steps("first_stage", kept, optimiser, schedule, configs.deciding(config)):
        # Once the statistics of batch normalisation have settled they stay, as they will afterwards: those of a batch
        # change the brightness of its pictures from step to step, which blurs what the latent can know of it.
        if perceptual is None and config.perceptual != "none":
            perceptual = PerceptualDistance(config.perceptual).to(run.device)
        model.train(step < FIXED_STATISTICS_FROM * schedule.steps)
        images, noise = (part.to(run.device) for part in share(*batches(step)))
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            mean, log_variance = (part.float() for part in model.posterior(images))
            decoded = model.decode(mean + noise * (0.5 * log_variance).exp()).float()
        terms, reconstruction = _reconstruction(config, model, perceptual, images, decoded)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()
        prior = kl / images[0].numel()
        loss = reconstruction + prior
        terms = {"loss": loss, **terms, "kl": kl}
        optimiser.zero_grad()
        if adversary is not None and step >= against.start * schedule.steps:
            terms["deceived"] = -adversary(decoded).mean()
            _backward(model, trained, decoded, reconstruction, terms["deceived"], against.weight, prior)
            terms["adversary"] = _hinge_loss(adversary, images, decoded.detach())
            terms["adversary"].backward()
        else:
            loss.backward()
        run.record("first_stage", step, **terms)  # before the update, which a loss that is not finite would spoil
        average_gradients(learning)
        if schedule.clip_norm:
            torch.nn.utils.clip_grad_norm_(trained, schedule.clip_norm)
        optimiser.step()
        if smooth is not None:
            smooth.update_parameters(model)
    if smooth is not None:
        model.load_state_dict(smooth.module.state_dict())
    return model.eval().requires_grad_(False)


def _networks(
    config: configs.Autoencoder, image_shape: tuple[int, int, int], run: Run
) -> tuple[Autoencoder, PatchDiscriminator | None, AveragedModel | None]:
    """The autoencoder with its starting weights; its adversary and its running average, or None."""
    against = config.adversary
    channels, image_size, _ = image_shape
    adversary = smooth = None
    with run.fixed_randomness("first_stage"):
        model = Autoencoder(
            image_size=image_size, channels=channels, width=config.width, latent_size=config.latent_size
        )
        if against.weight:
            adversary = PatchDiscriminator(channels=channels, width=against.width, stages=against.stages).to(run.device)
    model.to(run.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch lacks the overload
    if config.noise_scale is not None:
        model.log_scale.data.fill_(math.log(config.noise_scale))
        model.log_scale.requires_grad_(False)
    if config.average:
        smooth = AveragedModel(
            model, device=run.device, multi_avg_fn=get_ema_multi_avg_fn(config.average), use_buffers=True
        )
    return model, adversary, smooth


def _reconstruction(
    config: configs.Autoencoder,
    model: Autoencoder,
    perceptual: PerceptualDistance | None,
    images: Tensor,
    decoded: Tensor,
) -> tuple[dict[str, Tensor], Tensor]:
    """Distances of `decoded` from `images`, `(N, C, S, S)`, by name, and the reconstruction loss, nats a pixel."""
    terms = {"error": (decoded - images).abs().mean()}
    if perceptual is not None:
        terms["perceptual"] = perceptual(decoded, images).mean()
    distance = terms["error"] + config.perceptual_weight * terms.get("perceptual", 0)
    return terms, distance * (-model.log_scale).exp() + model.log_scale + math.log(2)


def _backward(
    model: Autoencoder,
    trained: list[nn.Parameter],
    decoded: Tensor,
    reconstruction: Tensor,
    deceived: Tensor,
    weight: float,
    rest: Tensor,
) -> None:
    """Leave the gradients of `reconstruction + weight * balance * deceived + rest` in `trained`.

    The balance gives the first two terms gradients of the same norm at the decoder's last layer. Each of them is
    differentiated once down to `decoded`, and the decoder once for their sum.
    Source: Esser, Rombach, Ommer (CVPR 2021), eq. 7.
    """
    scale = [model.log_scale] if model.log_scale.requires_grad else []
    towards, *of_scale = torch.autograd.grad(reconstruction, [decoded, *scale])
    (against,) = torch.autograd.grad(deceived, decoded)
    wanted, given = (
        average(torch.autograd.grad(decoded, model.last_weight, gradient, retain_graph=True)[0]).norm()
        for gradient in (towards, against)
    )
    balance = (wanted / (given + 1e-4)).clamp(max=LARGEST_WEIGHT)
    torch.autograd.backward([decoded, rest], [towards + weight * balance * against, None], inputs=trained)
    for parameter, gradient in zip(scale, of_scale, strict=True):
        parameter.grad = gradient


def _hinge_loss(adversary: PatchDiscriminator, real: Tensor, made: Tensor) -> Tensor:
    """The discriminator's loss (Lim, Ye 2017): real patches above 1, those made below -1."""
    return 0.5 * (functional.relu(1 - adversary(real)).mean() + functional.relu(1 + adversary(made)).mean())
