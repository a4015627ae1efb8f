"""T as its int8 graphs compute it, in the place of T, and what that costs."""

import onnx
import onnxruntime
import torch
from iin_bundle import Figure
from iin_bundle.factors import RESIDUAL
from torch import Tensor

from iin_training.flow_graphs import flow_graph
from iin_training.flows import Flow
from iin_training.losses import factor_nll
from iin_training.models.frozen import FrozenModel
from iin_training.pairs.base import PairSource
from iin_training.quantising import quantise
from iin_training.run import Run
from iin_training.stages.latents import PairLatents

__all__ = ["QuantisedFlow", "calibration_latents", "quantisation_figures"]

PAIRS = 4000  # of training pictures, whose latents give the ranges of activations
CHUNK = 500  # latents through a graph at a time
BROKEN = 1e-4  # a round trip worse than this went over the edge between two codes
NUDGE = 2.0**-21  # relative: four times the spacing of float32


class QuantisedFlow(Flow):
    """T with the nets s and t in int8, run by onnxruntime on the CPU; it takes and gives tensors on any device.

    Both directions have the same weights and scales, so that a half-step is undone with the same s and t. They differ
    by a step only where rounding carries an input of the nets over the edge between two codes.
    """

    def __init__(self, flow: Flow, latents: Tensor) -> None:
        """Quantise `flow` with the ranges that `latents`, `(N, *latent_shape)` of training pictures, give."""
        super().__init__([*flow.blocks])
        nets = quantise(flow, latents)
        self._graphs = [
            flow_graph(flow, inverse=inverse, nets=lambda graph, half_step, given: nets[half_step].write(graph, given))
            for inverse in (False, True)
        ]
        self._sessions = [_session(graph) for graph in self._graphs]

    def graph(self, *, inverse: bool) -> onnx.ModelProto:
        """What runs in one direction."""
        return self._graphs[inverse]

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self._run(0, z)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._run(1, y)

    def steady(self, latents: Tensor) -> Tensor:
        """Those of `latents`, `(N, *latent_shape)`, whose codes stay the same when the last bits of inputs change."""
        factors = self(latents)[0]
        kept = torch.ones(len(latents), dtype=torch.bool)
        for nudge in (1 - NUDGE, 1 + NUDGE):
            there, back = self(latents * nudge)[0], self.inverse(factors * nudge)[0]
            for found, expected in ((there, factors), (back, latents)):
                kept &= (found - expected).abs().flatten(1).amax(dim=1) < BROKEN / 10 * expected.abs().max()
        return latents[kept]

    def _run(self, index: int, items: Tensor) -> tuple[Tensor, Tensor]:
        session = self._sessions[index]
        given = items.detach().cpu().contiguous().numpy()
        value, log_abs_det = session.run(None, {session.get_inputs()[0].name: given})
        return torch.from_numpy(value).to(items.device), torch.from_numpy(log_abs_det).to(items.device)


def _session(graph: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def calibration_latents(model: FrozenModel, pairs: PairSource, run: Run) -> Tensor:
    """Latents `(2 * PAIRS, *latent_shape)` of training pictures, on the CPU."""
    source = PairLatents(model, pairs, run, draws=2 * PAIRS)
    parts: list[Tensor] = []
    for start in range(0, PAIRS, CHUNK):
        parts += source.drawn(CHUNK, (RESIDUAL, *pairs.concepts), run.generator("calibration", start))[:2]
    return torch.cat(parts)


@torch.no_grad()
def quantisation_figures(flow: Flow, quantised: QuantisedFlow, latents: Tensor) -> dict[str, Figure]:
    """What int8 costs on held-out `latents`, `(N, *latent_shape)`: round trip and log-likelihood beside float32's."""
    device = next(flow.parameters()).device

    def tried(transform: Flow) -> list[Tensor]:
        """Errors of the round trip, `(N, D)`, and log-likelihoods, `(N,)`."""
        parts = []
        for part in latents.split(CHUNK):
            factors, log_abs_det = transform(part.to(device))
            error = (transform.inverse(factors)[0].cpu() - part).abs().flatten(1)
            parts.append((error, -factor_nll(factors.double(), log_abs_det.double()).cpu()))
        return [torch.cat(column) for column in zip(*parts, strict=True)]

    (error, log_likelihood), (exact_error, exact_log_likelihood) = tried(quantised), tried(flow)
    difference = (log_likelihood - exact_log_likelihood).abs()
    broken, exact_broken = (float((e.amax(dim=1) > BROKEN).double().mean()) for e in (error, exact_error))
    mean = "mean round-trip error |inverse(transform(z)) - z| in int8; ceiling: in float32"
    share = f"share of latents with a round-trip error above {BROKEN:g} in some dimension; ceiling: in float32"
    apart = f"absolute difference (nats) of int8 from float32 log-likelihoods, {len(latents)} latents; ceiling: none"
    return {
        "int8_round_trip_mean": Figure(value=float(error.mean()), meaning=mean, ceiling=float(exact_error.mean())),
        "int8_round_trip_broken": Figure(value=broken, meaning=share, ceiling=exact_broken),
        "int8_log_likelihood_error": Figure(value=float(difference.mean()), meaning=f"mean {apart}", ceiling=0.0),
        "int8_log_likelihood_worst": Figure(value=float(difference.max()), meaning=f"largest {apart}", ceiling=0.0),
    }
