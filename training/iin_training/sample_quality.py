"""How far samples from the prior are from real pictures, by features of named networks."""

import numpy as np
import torch
from iin_bundle import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from iin_training.data.images import ImageArray
from iin_training.data.picture_sets import PictureSet
from iin_training.distances import frechet_distance, kernel_distance
from iin_training.evaluation import CHUNK, Interpreter
from iin_training.flows import Flow
from iin_training.models.effnet import EfficientNetLite0
from iin_training.models.frozen import FrozenModel
from iin_training.progress import late_bar
from iin_training.run import Run

__all__ = ["measure_samples"]

MOST = 10_000  # pictures of each kind, as published distances have them where there are as many
AT_ONCE = {"cpu": 16, "cuda": 512}  # pictures: a processor's cache holds their maps (twice as fast as 64)
SIDE = 96
"""Pixels, of `EfficientNetLite0`, at which sets of small pictures (32 pixels) are compared.

On 1,000 coloured digits both distances rank another real sample, an autoencoder's pictures, samples of a short
training, a blur of 3 pixels and noise, in this order. The kernel distance does not rank noise of 0.1, 0.3 and 1 there;
it does at 128 pixels, which take twice the time, and at 64 it fails on clothes as well. Distances at different sides
have different scales.
"""


@torch.no_grad()
def measure_samples(model: FrozenModel, transform: Flow, pictures: PictureSet, run: Run) -> dict[str, Figure]:
    """Kernel (KID) and Frechet (FD) distance of samples from held-out pictures, on features of EfficientNet-Lite0.

    Not the usual FID, which has features of Inception-v3: figures of other networks do not compare. Training pictures
    and reconstructions of other held-out pictures are measured too. All sets have one size, on which both distances
    depend, and none has a picture in common with the set that it is compared with.

    Raises:
        ValueError: where features of a set are not finite, as of pictures that overflow.

    """
    networks, generator = Interpreter(model, transform), run.generator("evaluation/samples")
    count = min(MOST, len(pictures.held_out_images) // 2, len(pictures.images))

    def some(images: NDArray[np.uint8], number: int) -> Tensor:
        chosen = torch.randperm(len(images), generator=generator)[:number]
        return ImageArray(images, value_range=(-1.0, 1.0)).load(chosen, None)

    low, high = model.value_range

    def scaled(images: Tensor) -> Tensor:
        return (images - low) * (2 / (high - low)) - 1

    held_out, others = some(pictures.held_out_images, 2 * count).split(count)
    noise = torch.randn(count, model.size, generator=generator).to(run.device)
    sets = {
        "held_out": held_out,
        "training": some(pictures.images, count),
        "reconstructed": scaled(networks.images(networks.factors((others + 1) * ((high - low) / 2) + low))),
        "sampled": scaled(networks.images(noise)),
        "without_transform": scaled(
            torch.cat([model.decode(part.unflatten(1, model.latent_shape)).cpu() for part in noise.split(CHUNK)])
        ),
    }
    network: nn.Module = EfficientNetLite0(SIDE).features.to(run.device)
    features = {name: _features(images, network, run) for name, images in sets.items()}
    for name, rows in features.items():
        if not np.isfinite(rows).all():
            raise ValueError(
                f"{name}: expected pictures with finite features, got NaN or infinite ones; look at "
                f"{run.directory / 'pictures.png'}, and train longer or at a lower learning rate"
            )
    real = features.pop("held_out")
    seed = run.seed_of("evaluation/subsets")
    distances = {
        "KID": {name: kernel_distance(real, other, seed=seed) for name, other in features.items()},
        "FD": {name: frechet_distance(real, other) for name, other in features.items()},
    }
    figures = {}
    for kind, found in distances.items():
        by = f"held-out pictures, by features of EfficientNet-Lite0 at {SIDE} pixels"
        figures[f"{kind}-lite0"] = Figure(
            value=found["sampled"],
            ceiling=found["training"],
            floor=found["without_transform"],
            meaning=f"distance of {count} samples from the prior to as many {by} (not comparable with figures of other "
            "networks, such as FID); ceiling: of training pictures; floor: of noise decoded without T",
        )
        figures[f"{kind}-lite0_reconstructed"] = Figure(
            value=found["reconstructed"],
            ceiling=found["training"],
            meaning=f"distance of {count} plain reconstructions to as many other {by}; ceiling: of training pictures",
        )
    return figures


@torch.no_grad()
def _features(images: Tensor, network: nn.Module, run: Run) -> NDArray[np.float64]:
    """What `network`, on the run's device, says of images `(N, C, H, W)`: `(N, D)`."""
    parts = []
    with late_bar("features", len(images), run.console) as advance:
        for chunk in images.split(AT_ONCE[run.device.type]):
            parts.append(network(chunk.to(run.device)).double().cpu())
            advance(len(chunk))
    return torch.cat(parts).numpy()
