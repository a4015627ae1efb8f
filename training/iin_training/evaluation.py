"""Figures of any interpretation: likelihood, what paired factors share, what an edit does once it is encoded."""

from dataclasses import dataclass

import numpy as np
import torch
from iin_bundle import FactorLayout, Figure
from iin_bundle.factors import RESIDUAL
from numpy.typing import NDArray
from torch import Tensor

from iin_training.flows import Flow
from iin_training.losses import factor_nll
from iin_training.models.frozen import FrozenModel
from iin_training.run import Run
from iin_training.stages.latents import PairLatents, at_once

__all__ = ["CHUNK", "DRAWN", "Evaluation", "Interpreter", "drawn_latents", "evaluate", "swapped"]

PAIRS = 2000  # held-out pairs that correlations are measured on
CHUNK = 500
"""Pictures, or latents, that go through networks at a time; fewer of large pictures."""
LATENTS = 10_000  # held-out latents for round trip and likelihood
DRAWN = LATENTS + 2 * PAIRS
"""Pictures that `drawn_latents` and `evaluate` together draw from a source."""
BY_HEART = 0.5  # nats a dimension; a warning where training pictures are likelier than held-out ones by more
PROBABILITIES = np.array([0, 0.001, 0.01, *np.arange(0.05, 1, 0.05), 0.99, 0.999, 1])


@dataclass(frozen=True)
class Evaluation:
    """Everything that is measured before export."""

    figures: dict[str, Figure]
    """By name, for the manifest and the model card."""
    log_likelihoods: NDArray[np.float64]
    """Of held-out latents, `(LATENTS,)` in nats."""

    def quantiles(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Probabilities and log-likelihoods, in nats, at each."""
        values = np.quantile(self.log_likelihoods, PROBABILITIES)
        return tuple(PROBABILITIES.round(3).tolist()), tuple(values.tolist())


class Interpreter:
    """A frozen model and its T together, on whole sets of pictures, a chunk at a time."""

    def __init__(self, model: FrozenModel, transform: Flow) -> None:
        """Both are on one device, which is T's: a model from ONNX files has none of its own."""
        self.model, self.transform = model, transform
        self.device = next(transform.parameters()).device
        self._chunk = at_once(CHUNK, model.image_shape)

    @torch.no_grad()
    def factors(self, images: Tensor) -> Tensor:
        """Factors `(N, D)`, on the device, of images `(N, C, H, W)`."""
        return torch.cat(
            [self.translated(self.model.encode(part.to(self.device))) for part in images.split(self._chunk)]
        )

    @torch.no_grad()
    def translated(self, latents: Tensor) -> Tensor:
        """Factors `(N, D)`, on the device, of latents `(N, *latent_shape)`."""
        return torch.cat([self.transform(part.to(self.device))[0] for part in latents.split(CHUNK)])

    @torch.no_grad()
    def log_likelihoods(self, latents: Tensor) -> NDArray[np.float64]:
        """Log-likelihood `(N,)`, nats, of latents `(N, *latent_shape)`."""
        parts = [self.transform(part.to(self.device)) for part in latents.split(CHUNK)]
        return torch.cat([-factor_nll(*(one.double().cpu() for one in part)) for part in parts]).numpy()

    @torch.no_grad()
    def images(self, factors: Tensor) -> Tensor:
        """Images `(N, C, H, W)`, on the CPU, of factors `(N, D)`."""
        parts = factors.split(self._chunk)
        return torch.cat([self.model.decode(self.transform.inverse(part)[0]).cpu() for part in parts])

    def again(self, factors: Tensor) -> Tensor:
        """Factors `(N, D)`, on the device, of the images of factors `(N, D)`; only a chunk of images is kept."""
        return torch.cat([self.factors(self.images(part)) for part in factors.split(self._chunk)])

    @torch.no_grad()
    def classes(self, factors: Tensor) -> Tensor:
        """The class, `(N,)` on the CPU, that the model's head sees in factors `(N, D)`."""
        parts = factors.split(CHUNK)
        return torch.cat([self.model.classify(self.transform.inverse(part)[0]).argmax(dim=1).cpu() for part in parts])


def swapped(target: Tensor, source: Tensor, where: slice) -> Tensor:
    """Factors `target`, `(N, D)`, with the dimensions `where` of `source`, `(N, D)` or `(D,)`."""
    mixed = target.clone()
    mixed[:, where] = source[..., where]
    return mixed


def drawn_latents(pairs: PairLatents, run: Run, name: str) -> Tensor:
    """Latents `(LATENTS, *latent_shape)` of both sides of pairs, on the CPU; `name` decides the draws."""
    parts: list[Tensor] = []
    for start in range(0, LATENTS, 2 * CHUNK):
        parts += pairs.drawn(CHUNK, (RESIDUAL, *pairs.concepts), run.generator(name, start))[:2]
    return torch.cat(parts)


def evaluate(
    model: FrozenModel,
    transform: Flow,
    layout: FactorLayout,
    held_out: PairLatents,
    latents: Tensor,
    training: PairLatents,
    run: Run,
) -> Evaluation:
    """Measure what can be measured of any model without an independent judge; warn of a T that learnt by heart.

    `held_out` are pairs of pictures that no training step saw, `training` the pairs that T was trained on, both with
    `DRAWN` draws. `latents` are held-out ones for the likelihood, `(N, *latent_shape)`.
    """
    interpreter = Interpreter(model, transform)
    log_likelihoods = interpreter.log_likelihoods(latents)
    before, after = interpreter.log_likelihoods(drawn_latents(training, run, "training")).mean(), log_likelihoods.mean()
    if before - after > BY_HEART * layout.size:
        run.console.print(
            f"warning: training pictures are much likelier than held-out ones ({before:.1f} and {after:.1f} nats): T "
            "knows them by heart. More pictures, --transform.noise or fewer --transform.optimiser.steps help"
        )
    different = len(latents.unique(dim=0))
    figures = {
        "held_out_log_likelihood": Figure(
            value=float(after),
            ceiling=float(before),
            meaning=f"mean log-likelihood, in nats, of {len(latents)} latents from held-out pairs ({different} of them "
            "different); ceiling: from training pairs, augmented as in training",
        )
    }
    a, b, shared = _drawn_factors(interpreter, held_out, layout, run.generator("evaluation/pairs"))
    # The partner in a pair may share a factor; a source from another pair shares it by chance only.
    source = b[torch.randperm(len(b), generator=run.generator("evaluation/sources")).to(b.device)]
    seen_a, seen_b, shared_seen = _drawn_factors(interpreter, training, layout, run.generator("evaluation/training"))
    for column, name in enumerate(layout.names):
        where, chosen, seen = layout.slice(name), shared[:, column], shared_seen[:, column]
        if name != RESIDUAL and chosen.any():
            figures[f"{name}_shared"] = Figure(
                value=_correlation(a[chosen, where], b[chosen, where]),
                ceiling=_correlation(seen_a[seen, where], seen_b[seen, where]) if seen.any() else None,
                floor=_correlation(a[:, where], source[:, where]),
                meaning=f"correlation of the factor {name} between the pictures of held-out pairs that share it; "
                "ceiling: of training pairs that share it; floor: of different pairs",
            )
    if model.has_decoder:
        figures |= _edit_figures(interpreter, a, source, layout)
    if model.head is not None:
        figures |= _response_figures(interpreter, a, layout, run)
    return Evaluation(figures, log_likelihoods)


def _drawn_factors(
    interpreter: Interpreter, pairs: PairLatents, layout: FactorLayout, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Factors `(PAIRS, D)` of the first and of the second images of pairs, and what they share, `(PAIRS, K)`."""
    a, b, shared = pairs.drawn(PAIRS, layout.names, generator)
    return interpreter.translated(a), interpreter.translated(b), shared.to(interpreter.device)


def _correlation(first: Tensor, second: Tensor) -> float:
    """Correlation of `(N, n)` factors with others, every dimension about its own mean; 0 where one is constant."""
    a, b = (side.double() - side.double().mean(dim=0) for side in (first, second))
    scale = float((a.square().mean() * b.square().mean()).sqrt())
    return float((a * b).mean()) / scale if scale > 0 else 0.0


def _edit_figures(interpreter: Interpreter, a: Tensor, b: Tensor, layout: FactorLayout) -> dict[str, Figure]:
    """Whether an edit survives the way through the decoder and back through the encoder."""
    again = interpreter.again(a)
    figures = {}
    for part in layout:
        if part.name == RESIDUAL:
            continue
        where = layout.slice(part.name)
        seen = interpreter.again(swapped(a, b, where))
        rest = [column for column in range(layout.size) if not where.start <= column < where.stop]
        figures[f"{part.name}_edit_taken"] = Figure(
            value=_correlation(seen[:, where], b[:, where]),
            ceiling=_correlation(again[:, where], a[:, where]),
            floor=_correlation(seen[:, where], a[:, where]),
            meaning=f"{part.name} replaced, the picture decoded and encoded again: correlation of {part.name} with the "
            "source's; ceiling: without the edit, with the picture's own; floor: with the target's",
        )
        figures[f"{part.name}_edit_rest_kept"] = Figure(
            value=_correlation(seen[:, rest], a[:, rest]),
            ceiling=_correlation(again[:, rest], a[:, rest]),
            floor=_correlation(b[:, rest], a[:, rest]),
            meaning=f"{part.name} replaced, the picture decoded and encoded again: correlation of all other factors "
            "with the target's",
        )
    return figures


def _response_figures(interpreter: Interpreter, a: Tensor, layout: FactorLayout, run: Run) -> dict[str, Figure]:
    """How often the model's class changes when one factor is resampled from the prior.

    After the network response analysis of Esser, Rombach, Ommer (CVPR 2020), section 4, over many pictures in place
    of many draws for one.
    """
    before = interpreter.classes(a)
    noise = torch.randn(a.shape, generator=run.generator("evaluation/response")).to(a.device)
    everything = float((interpreter.classes(noise) != before).double().mean())
    figures = {}
    for part in layout:
        drawn_anew = swapped(a, noise, layout.slice(part.name))
        figures[f"{part.name}_response"] = Figure(
            value=float((interpreter.classes(drawn_anew) != before).double().mean()),
            ceiling=everything,
            floor=0.0,
            meaning=f"{part.name} resampled from the prior: share of pictures whose predicted class changes; "
            "ceiling: all factors resampled; floor: none",
        )
    return figures
