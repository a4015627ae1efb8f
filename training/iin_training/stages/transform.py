"""Estimate factor sizes, and train the interpretation network T on the latents of a frozen model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from iin_bundle.factors import RESIDUAL
from numpy.typing import NDArray
from torch import Tensor

from iin_training import config as configs
from iin_training.factor_sizes import allot_sizes, paper_scores, reference_scores
from iin_training.flows import Flow, interpretation_flow
from iin_training.losses import pair_nll
from iin_training.models.checks import Findings
from iin_training.models.frozen import FrozenModel
from iin_training.optimising import update
from iin_training.pairs.base import PairSource, fingerprint
from iin_training.processes import average_gradients, of_share, share
from iin_training.run import Run
from iin_training.stages.latents import PairLatents, at_once, in_parts

__all__ = ["SizeScores", "choose_sizes", "given_sizes", "score_concepts", "train_transform"]

PAIRS_FOR_SIZES = 2000  # a concept
PAIRS_AT_ONCE = 500
LEAST_FOR_SIZES = 100
DRAWS_FOR_SIZES = 60  # batches, before a concept is given up whose pairs are rare
DRAWS_WITHOUT_ANY = 6  # batches without a single pair, before a concept is given up that has none
INITIAL_BATCH = 1024  # pairs that ActNorm's statistics come from


@dataclass(frozen=True)
class SizeScores:
    """What the latents say of each concept, by both estimators, before anything is trained."""

    reference: dict[str, float]
    """Scores as the authors' code measures them; `residual` first."""
    paper: dict[str, float]
    """Scores by the formula that the paper prints."""
    size: int
    """D, dimensions to share out."""


@torch.no_grad()
def score_concepts(model: FrozenModel, pairs: PairSource, run: Run) -> SizeScores:
    """Measure how much of the latents each concept of `pairs` explains, on pairs that share it alone.

    Raises:
        ValueError: where a concept has no such pairs, or too few were drawn.

    """
    factors = (RESIDUAL, *pairs.concepts)
    if not pairs.concepts:
        return SizeScores({RESIDUAL: 1.0}, {RESIDUAL: float(model.size)}, model.size)
    source = PairLatents(model, pairs, run, draws=2 * PAIRS_FOR_SIZES * len(pairs.concepts))
    found: dict[str, list[tuple[Tensor, Tensor]]] = {concept: [] for concept in pairs.concepts}
    wanting = list(pairs.concepts)
    for step in range(DRAWS_FOR_SIZES):
        generator = run.generator("sizes", step)
        for size in in_parts(PAIRS_AT_ONCE, at_once(PAIRS_AT_ONCE, model.image_shape)):
            batch = source.draw(size, factors, generator)
            for concept in wanting:
                chosen = (batch.shared.sum(dim=1) == 1) & batch.shared[:, factors.index(concept)]
                if chosen.any():
                    sides = (batch.images_a[chosen], batch.images_b[chosen])
                    a, b = (source.posterior(drawn)[:, 0].cpu() for drawn in sides)
                    found[concept].append((a, b))
        wanting = [concept for concept in wanting if sum(len(a) for a, _ in found[concept]) < PAIRS_FOR_SIZES]
        if not wanting or (step + 1 >= DRAWS_WITHOUT_ANY and not all(found.values())):
            break
    if rare := [concept for concept in pairs.concepts if sum(len(a) for a, _ in found[concept]) < LEAST_FOR_SIZES]:
        raise ValueError(
            f"pairs: expected at least {LEAST_FOR_SIZES} pairs that share {rare[0]} and nothing else to estimate its "
            f"size from, got {sum(len(a) for a, _ in found[rare[0]])} of {(step + 1) * PAIRS_AT_ONCE} drawn; add a "
            "source of such pairs, or set transform.sizes for `iin-train run`"
        )
    latents: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for concept, parts in found.items():
        first, second = (torch.cat(side)[:PAIRS_FOR_SIZES].numpy() for side in zip(*parts, strict=True))
        latents[concept] = first, second
    return SizeScores(reference_scores(latents), paper_scores(latents), model.size)


def choose_sizes(
    config: configs.Transform, model: FrozenModel, pairs: PairSource, run: Run
) -> tuple[dict[str, int], dict[str, float]]:
    """Sizes of the residual and of each concept, and the scores they come from (none where set by hand)."""
    if (sizes := given_sizes(config, model.size, pairs.concepts)) is not None:
        return sizes, {}
    found = score_concepts(model, pairs, run)
    scores = found.reference if config.size_estimator == "reference" else found.paper
    return allot_sizes(scores, model.size), scores


def given_sizes(config: configs.Transform, size: int, concepts: Sequence[str]) -> dict[str, int] | None:
    """Sizes of the residual and of each concept, of `size` dimensions in all, where they are set by hand.

    Raises:
        ValueError: where they cannot be those of `concepts`.

    """
    if config.sizes is None:
        return None
    rest = size - sum(config.sizes.values())
    if set(config.sizes) != set(concepts) or rest < 1 or min(config.sizes.values(), default=1) < 1:
        raise ValueError(
            f"transform.sizes: expected a positive size for each of {', '.join(concepts) or 'no concepts'} that "
            f"leave at least 1 of {size} dimensions to the residual, got {config.sizes}"
        )
    return {RESIDUAL: rest, **{concept: config.sizes[concept] for concept in concepts}}


def train_transform(
    config: configs.Transform,
    model: FrozenModel,
    sizes: Mapping[str, int],
    pairs: PairSource,
    run: Run,
    findings: Findings | None = None,
) -> Flow:
    """T in eval mode, trained by the supervised pair loss on draws from the encoder.

    Pairs that share nothing make it the unsupervised loss. `findings` tells of dimensions that need noise.
    """
    schedule, factors = config.optimiser, tuple(sizes)
    seed = run.seed_of("permutation")
    with run.fixed_randomness("transform"):
        flow = interpretation_flow(
            model.latent_shape, blocks=config.blocks, hidden=config.hidden, depth=config.depth, seed=seed
        ).to(run.device)
    source = PairLatents(model, pairs, run, draws=2 * schedule.batch_size * schedule.steps)

    generator = run.generator("initial")
    parts = in_parts(INITIAL_BATCH, at_once(INITIAL_BATCH, model.image_shape))
    initial = torch.cat([source.sampled(source.draw(part, factors, generator), generator, findings) for part in parts])
    spread = config.noise * initial.std(dim=0)
    flow.initialize(initial)
    optimiser = torch.optim.Adam(flow.parameters(), betas=schedule.betas, fused=True)
    settings = asdict(config) | {
        "factors": dict(sizes),
        "model": model.digest(),
        "pairs": fingerprint(pairs),
    }
    del settings["gaussianise"]  # of the stage after this one
    for step in run.steps("transform", flow, optimiser, schedule, settings):
        generator = run.generator("transform", step)
        batch = source.draw(schedule.batch_size, factors, generator)
        latents = source.sampled(batch, generator, findings, of_share)
        if config.noise:
            latents = latents + spread * torch.randn(latents.shape, generator=generator).to(run.device)
        latents_a, latents_b, shared, similarity = share(
            *latents.chunk(2), batch.shared.to(run.device), batch.similarity_or(config.similarity).to(run.device)
        )
        with torch.autocast(run.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            outputs, log_abs_det = flow(torch.cat([latents_a, latents_b]))
        factors_a, factors_b = outputs.chunk(2)
        log_abs_det_a, log_abs_det_b = log_abs_det.chunk(2)
        loss = pair_nll(
            factors_a,
            factors_b,
            log_abs_det_a,
            log_abs_det_b,
            sizes=list(sizes.values()),
            shared=shared,
            similarity=similarity,
        ).mean()
        run.record("transform", step, loss=loss)  # before the update, which a loss that is not finite would spoil
        optimiser.zero_grad()
        loss.backward()
        average_gradients(flow.parameters())
        update(optimiser, schedule.clip_norm)
    return flow.eval().requires_grad_(False)
