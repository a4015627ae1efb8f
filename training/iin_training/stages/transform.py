"""Estimate factor sizes, and train the interpretation network T on the frozen first stage."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray

from iin_training import config as configs
from iin_training.data.coloured_digits import PAIR_KINDS, ColouredDigits
from iin_training.factor_sizes import allot_sizes, paper_scores, reference_scores
from iin_training.flows import Flow, interpretation_flow
from iin_training.losses import pair_nll
from iin_training.models.autoencoder import Autoencoder
from iin_training.run import Run

__all__ = ["build_transform", "estimate_sizes", "train_transform"]

CONCEPTS = ("digit", "colour")
PAIRS_FOR_SIZES = 2000  # a concept
INITIAL_BATCH = 1024  # pairs that ActNorm's statistics come from


@torch.no_grad()
def estimate_sizes(
    config: configs.Transform, encoder: Autoencoder, data: ColouredDigits, run: Run
) -> tuple[dict[str, int], dict[str, float]]:
    """Sizes of residual, digit and colour, and the scores they come from (none where set by hand)."""
    if config.sizes is not None:
        rest = encoder_size(encoder) - sum(config.sizes)
        if rest < 1 or min(config.sizes) < 1:
            raise ValueError(
                f"transform.sizes: expected positive sizes that leave at least 1 of {encoder_size(encoder)} "
                f"dimensions to the residual, got {config.sizes}"
            )
        return {"residual": rest, **dict(zip(CONCEPTS, config.sizes, strict=True))}, {}
    pairs: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for concept in CONCEPTS:
        batch = data.pairs({concept: PAIRS_FOR_SIZES}, CONCEPTS, run.generator(f"sizes/{concept}"))
        a, b = (encoder.encode(x.to(run.device)).cpu().numpy() for x in (batch.images_a, batch.images_b))
        pairs[concept] = (a, b)
    scores = (reference_scores if config.size_estimator == "reference" else paper_scores)(pairs)
    return allot_sizes(scores, encoder_size(encoder)), scores


def encoder_size(encoder: Autoencoder) -> int:
    """D, the size of the latents."""
    first = encoder.decoder[0]
    assert isinstance(first, torch.nn.ConvTranspose2d)
    return first.in_channels


def pair_counts(mix: configs.PairMix, batch_size: int) -> dict[str, int]:
    """How many pairs of each kind make a batch of `batch_size`."""
    weights = {kind: float(getattr(mix, kind)) for kind in PAIR_KINDS}
    total = sum(weights.values())
    if min(weights.values()) < 0 or not total > 0:
        raise ValueError(f"transform.pairs: expected weights of at least 0, not all 0, got {weights}")
    counts = {kind: int(batch_size * weight / total) for kind, weight in weights.items()}
    counts[max(weights, key=lambda kind: weights[kind])] += batch_size - sum(counts.values())
    return counts


def build_transform(config: configs.Transform, size: int, run: Run) -> Flow:
    """T for latents of `size` dimensions, with its starting weights."""
    with run.fixed_randomness("transform"):
        return interpretation_flow(
            size,
            blocks=config.blocks,
            hidden=config.hidden,
            depth=config.depth,
            seed=run.seed_of("permutation"),
        )


def _digest(model: torch.nn.Module) -> str:
    """sha256 of all weights, so that T is never continued on another first stage."""
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def train_transform(
    config: configs.Transform, encoder: Autoencoder, sizes: Mapping[str, int], data: ColouredDigits, run: Run
) -> Flow:
    """T in eval mode, trained by the supervised pair loss on draws from the encoder's posterior."""
    schedule, factors = config.optimiser, tuple(sizes)
    if not 0 <= config.similarity < 1:
        raise ValueError(f"transform.similarity: expected a correlation in [0, 1), got {config.similarity}")
    counts = pair_counts(config.pairs, schedule.batch_size)
    model = build_transform(config, sum(sizes.values()), run).to(run.device)

    @torch.no_grad()
    def draw_latents(counts: Mapping[str, int], generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        batch = data.pairs(counts, factors, generator)
        images = torch.cat([batch.images_a, batch.images_b])
        mean, log_variance = encoder.posterior(images.to(run.device, memory_format=torch.channels_last))
        noise = torch.randn(mean.shape, generator=generator).to(run.device)
        return mean + noise * (0.5 * log_variance).exp(), batch.shared.to(run.device)

    model.initialize(draw_latents(pair_counts(config.pairs, INITIAL_BATCH), run.generator("initial"))[0])
    optimiser = torch.optim.Adam(model.parameters(), betas=schedule.betas, fused=True)
    settings = asdict(config) | {"factors": dict(sizes), "first_stage": _digest(encoder)}
    for step in run.steps("transform", model, optimiser, schedule, settings):
        latents, shared = draw_latents(counts, run.generator("transform", step))
        outputs, log_abs_det = model(latents)
        factors_a, factors_b = outputs.chunk(2)
        log_abs_det_a, log_abs_det_b = log_abs_det.chunk(2)
        similarity = torch.full((len(shared),), config.similarity, device=run.device)
        loss = pair_nll(
            factors_a,
            factors_b,
            log_abs_det_a,
            log_abs_det_b,
            sizes=list(sizes.values()),
            shared=shared,
            similarity=similarity,
        ).mean()
        optimiser.zero_grad()
        loss.backward()
        if schedule.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip_norm)
        optimiser.step()
        run.record("transform", step, loss=loss)
    return model.eval().requires_grad_(False)
