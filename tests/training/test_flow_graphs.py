"""The graphs of T that we write ourselves compute what T computes, in few nodes."""

from collections import Counter

import numpy as np
import onnxruntime
import pytest
import torch
from iin_training.flow_graphs import flow_graph
from iin_training.flows import Flow, interpretation_flow

SHAPES = {"even": 64, "odd": 7, "spatial": (2, 3, 3)}


def flow_of(shape, mean=1, std=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = interpretation_flow(shape, blocks=3, hidden=20, depth=2, seed=0)
        latents = torch.randn(500, *((shape,) if isinstance(shape, int) else shape)) * std + mean
    flow.initialize(latents)
    return flow.eval().requires_grad_(False), latents


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("batch", [1, 3, 32])
def test_both_directions_agree_with_torch(shape, batch):
    check_agreement(*flow_of(shape), batch)


@pytest.mark.parametrize(("mean", "std"), [(20, 1e-3), (-20, 1e-3), (1e5, 1)])
def test_latents_far_from_zero_keep_what_tells_them_apart(mean, std):
    check_agreement(*flow_of(64, mean, std), 32)


def check_agreement(flow, latents, batch):
    factors = flow(latents)[0]
    for inverse, items, names in (
        (False, latents, ["factors", "log_abs_det"]),
        (True, factors, ["latent", "log_abs_det"]),
    ):
        model = flow_graph(flow, inverse=inverse)
        assert [output.name for output in model.graph.output] == names
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found = session.run(None, {"factors" if inverse else "latent": items[:batch].numpy()})
        expected = (flow.inverse if inverse else flow)(items[:batch])
        for values, wanted in zip(found, expected, strict=True):
            assert values.shape == wanted.shape
            scale = max(1.0, float(wanted.abs().max()))
            np.testing.assert_allclose(values, wanted.numpy(), rtol=0, atol=1e-5 * scale)


def test_a_block_takes_few_nodes():
    model = flow_graph(flow_of(64)[0], inverse=False)
    kinds = Counter(node.op_type for node in model.graph.node)
    nets = {"Gemm": 2 * 2 * 3, "LeakyRelu": 2 * 2 * 2}
    steps = {"Tanh": 2, "Exp": 2, "Mul": 2 + 1, "Add": 2 + 1, "Split": 1, "Concat": 1, "Gather": 1}
    expected = {kind: 3 * count for kind, count in (nets | steps).items()}
    expected["Concat"] += 1  # of all s, whose sum is the log-determinant
    expected["Add"] += 1
    assert kinds == expected | {"ReduceSum": 1}


def test_a_block_without_a_graph_is_named():
    with pytest.raises(TypeError, match=r"got Flow; write its nodes in iin_training\.flow_graphs$"):
        flow_graph(Flow([flow_of(7)[0]]), inverse=False)
