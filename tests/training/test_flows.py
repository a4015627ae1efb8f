"""The laws that every invertible block keeps; a new block joins by adding its name to BLOCKS."""

import math

import numpy as np
import onnxruntime
import pytest
import torch
from iin_training.flows import ActNorm, DoubleCoupling, Flatten, Flow, Permutation, interpretation_flow
from safetensors.torch import load_file, save_file
from torch import nn

# Name -> (shape of one latent, block with parameters from a seed). Factors are vectors of as many dimensions.
BLOCKS = {
    "actnorm": ((6,), lambda seed: ActNorm(6)),
    "coupling of an even size": ((6,), lambda seed: DoubleCoupling(6, hidden=8, depth=2)),
    "coupling of an odd size": ((5,), lambda seed: DoubleCoupling(5, hidden=8, depth=1)),
    "permutation": ((7,), lambda seed: Permutation(torch.randperm(7, generator=torch.Generator().manual_seed(seed)))),
    "flow of one block": ((3,), lambda seed: Flow([ActNorm(3)])),
    "interpretation flow": ((5,), lambda seed: interpretation_flow(5, blocks=3, hidden=8, depth=3, seed=seed)),
    "flatten": ((2, 1, 3), lambda seed: Flatten((2, 1, 3))),
    "flow of spatial latents": (
        (3, 1, 3),
        lambda seed: interpretation_flow((3, 1, 3), blocks=2, hidden=8, depth=1, seed=seed),
    ),
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def random_block(name, *, seed=0, dtype=torch.float64):
    """A block with random parameters, a source of latents and one of factors."""
    shape, make = BLOCKS[name]
    torch.manual_seed(seed)
    block = make(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))

    def latents(rows):
        return torch.randn(rows, *shape, dtype=dtype)

    def factors(rows):
        return torch.randn(rows, math.prod(shape), dtype=dtype)

    return block.to(dtype), latents, factors


class BothWays(nn.Module):
    """Forward and inverse side by side, so that one export shows both."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, z, y):
        return (*self.block(z), *self.block.inverse(y))


@pytest.fixture(params=BLOCKS)
def name(request):
    return request.param


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_each_direction_undoes_the_other(name, batch, dtype):
    block, latents, factors = random_block(name, dtype=dtype)
    ways = ((block, block.inverse, latents, factors), (block.inverse, block, factors, latents))
    for there, back, source, target in ways:
        z = source(batch)
        y, log_abs_det = there(z)
        again, opposite = back(y)
        assert y.shape == target(batch).shape
        assert log_abs_det.shape == (batch,)
        assert y.dtype == log_abs_det.dtype == dtype
        scale = max(1.0, float(z.abs().max()), float(y.detach().abs().max()))
        torch.testing.assert_close(again, z, rtol=0, atol=TOLERANCE[dtype] * scale)
        torch.testing.assert_close(log_abs_det + opposite, torch.zeros_like(opposite), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_log_determinant_is_that_of_the_jacobian(name, direction):
    block, latents, factors = random_block(name)
    apply = getattr(block, direction)
    z = (latents if direction == "forward" else factors)(3)
    _, log_abs_det = apply(z)
    for row, found in zip(z, log_abs_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda v: apply(v[None])[0][0], row)
        jacobian = jacobian.reshape(row.numel(), row.numel())
        torch.testing.assert_close(found, torch.linalg.slogdet(jacobian).logabsdet, rtol=0, atol=1e-10)


def test_a_row_does_not_depend_on_the_rest_of_its_batch(name):
    block, latents, factors = random_block(name)
    for apply, z in ((block, latents(5)), (block.inverse, factors(5))):
        together = apply(z)
        for index in range(5):
            alone = apply(z[index : index + 1])
            for whole, part in zip(together, alone, strict=True):
                torch.testing.assert_close(part[0], whole[index], rtol=0, atol=1e-12)


def test_a_saved_block_loads_to_the_same_map(name, tmp_path):
    block, latents, factors = random_block(name, seed=1)
    other, *_ = random_block(name, seed=2)
    save_file(block.state_dict(), tmp_path / "block.safetensors")
    other.load_state_dict(load_file(tmp_path / "block.safetensors"))
    for mine, theirs, z in ((block, other, latents(4)), (block.inverse, other.inverse, factors(4))):
        for expected, found in zip(mine(z), theirs(z), strict=True):
            assert torch.equal(expected, found)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_using_a_block_changes_nothing_in_it(name, mode):
    block, latents, factors = random_block(name)
    getattr(block, mode)()
    before = {key: value.clone() for key, value in block.state_dict().items()}
    block(100 * latents(4) + 7)
    block.inverse(100 * factors(4) + 7)
    after = block.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
def test_an_exported_block_matches_torch_at_every_batch(name, tmp_path):
    block, latents, factors = random_block(name, dtype=torch.float32)
    both, path = BothWays(block).eval(), tmp_path / "both.onnx"
    batch = {0: torch.export.Dim("batch", min=1)}
    torch.onnx.export(
        both,
        (latents(2), factors(2)),
        path,
        input_names=["z", "y"],
        dynamic_shapes=(batch, batch),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rows in (1, 2, 5, 33):
        z, y = latents(rows), factors(rows)
        outputs = session.run(None, {"z": z.numpy(), "y": y.numpy()})
        for expected, found in zip(both(z, y), outputs, strict=True):
            np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
