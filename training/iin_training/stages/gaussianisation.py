"""Make every factor of a trained T standard normal, each by itself, so that samples look like data."""

from collections.abc import Mapping
from dataclasses import asdict, replace

import torch
from torch import Tensor

from iin_training import config as configs
from iin_training.data.digests import digest_of
from iin_training.flows import Flow
from iin_training.flows.within import blocks_within
from iin_training.losses import factor_nll
from iin_training.models.checks import Findings
from iin_training.models.frozen import FrozenModel
from iin_training.optimising import update
from iin_training.pairs.base import PairSource, fingerprint
from iin_training.processes import average_gradients, share
from iin_training.progress import late_bar
from iin_training.run import Run
from iin_training.stages.latents import MOST_BYTES, PairLatents, at_once, in_parts

__all__ = ["GAUSSIANISATION", "gaussianise"]

GAUSSIANISATION = "gaussianisation"
LATENTS = 32_000  # drawn once; fewer where T saw fewer, or where they would take more memory than MOST_BYTES
PAIRS_AT_ONCE = 250
INITIAL = 2000  # latents that ActNorm's statistics come from


def gaussianise(
    config: configs.Transform,
    model: FrozenModel,
    transform: Flow,
    sizes: Mapping[str, int],
    pairs: PairSource,
    run: Run,
    findings: Findings | None = None,
) -> Flow:
    """`transform` followed by blocks that act within each factor alone, trained by the unsupervised loss.

    The pair loss leaves factors that are not standard normal: narrower where pairs are less alike than `similarity`
    says, and with a cluster for each value of the concept, such as a digit. Samples from the prior then lie where no
    picture does. The blocks carry nothing from one factor to another, so that swaps of whole factors stay the same.
    After Chen and Gopinath, Gaussianization (NeurIPS 2000), with couplings in place of rotations.

    Args:
        config: of T. The blocks' nets have the same sizes, and the schedule is the same with half as many updates.
        model: the frozen model, on the run's device.
        transform: T, trained and in eval mode.
        sizes: of the factors.
        pairs: those that T was trained on; what they share does not matter here.
        run: keeps checkpoints and metrics.
        findings: tells of dimensions that need noise.

    """
    trained = config.optimiser
    schedule = replace(trained, steps=max(1, trained.steps // 2), batch_size=4 * trained.batch_size)

    @torch.no_grad()
    def draw_factors() -> Tensor:
        """Factors `(N, D)` that T gives to latents drawn as in its own training."""
        most = min(LATENTS, 2 * trained.batch_size * trained.steps, MOST_BYTES // (4 * model.size))
        parts = in_parts(max(1, most // 2), at_once(PAIRS_AT_ONCE, model.image_shape))
        source, generator = PairLatents(model, pairs, run, draws=most), run.generator(f"{GAUSSIANISATION}/latents")
        latents = torch.empty(2 * sum(parts), *model.latent_shape, device=run.device)
        rows = latents.split([2 * part for part in parts])
        with late_bar("drawing", len(latents), run.console) as advance:
            for part, drawn in zip(parts, rows, strict=True):
                drawn.copy_(source.sampled(source.draw(part, tuple(sizes), generator), generator, findings))
                advance(len(drawn))
        spread = config.noise * latents.std(dim=0)
        for drawn in rows:
            if config.noise:
                drawn += spread * torch.randn(drawn.shape, generator=generator).to(run.device)
            drawn.copy_(transform(drawn)[0].view_as(drawn))  # in place: factors are as many numbers as latents
        return latents.flatten(1)

    with run.fixed_randomness(GAUSSIANISATION):
        blocks = blocks_within(
            list(sizes.values()),
            blocks=config.gaussianise,
            hidden=config.hidden,
            depth=config.depth,
            seed=run.seed_of(f"{GAUSSIANISATION}/permutation"),
        )
    within = Flow(blocks).to(run.device)
    factors = torch.empty(0)
    if run.steps_done(GAUSSIANISATION) < schedule.steps:
        factors = draw_factors()
        within.initialize(factors[:INITIAL])
    optimiser = torch.optim.Adam(within.parameters(), betas=schedule.betas, fused=True)
    settings = asdict(replace(config, optimiser=schedule)) | {
        "factors": dict(sizes),
        "pairs": fingerprint(pairs),
        "transform": digest_of(*transform.state_dict().values()),
    }
    # Another learning rate would be another T's.
    remedy = "--transform.gaussianise 0 goes on without these blocks; T is kept"
    for step in run.steps(GAUSSIANISATION, within, optimiser, schedule, settings, remedy):
        chosen = torch.randint(len(factors), (schedule.batch_size,), generator=run.generator(GAUSSIANISATION, step))
        (batch,) = share(factors[chosen])
        with torch.autocast(run.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            found = within(batch)
        loss = factor_nll(*found).mean()
        run.record(GAUSSIANISATION, step, loss=loss)  # before the update, which a loss that is not finite would spoil
        optimiser.zero_grad()
        loss.backward()
        average_gradients(within.parameters())
        update(optimiser, schedule.clip_norm)
    return Flow([*transform.blocks, *blocks]).eval().requires_grad_(False)
