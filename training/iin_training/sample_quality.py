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
from iin_training.features import SIDE, features_of
from iin_training.flows import Flow
from iin_training.models.effnet import EfficientNetLite0
from iin_training.models.frozen import FrozenModel
from iin_training.run import Run

__all__ = ["measure_samples"]

MOST = 10_000  # pictures of each kind, as published distances have them where there are as many


@torch.no_grad()
def measure_samples(model: FrozenModel, transform: Flow, pictures: PictureSet, run: Run) -> dict[str, Figure]:
    """Kernel (KID) and Frechet (FD) distance of samples from held-out pictures, on features of EfficientNet-Lite0.

    Not the usual FID, which has features of Inception-v3: figures of other networks do not compare. As many training
    pictures, and as many reconstructions of other held-out pictures, stand beside the samples: sets of one size, since
    both distances depend on it, and without a picture in common with those that they are compared with.

    Args:
        model: the frozen model, with a decoder.
        transform: T, in eval mode.
        pictures: real pictures.
        run: gives randomness, the device and the console.

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
    features = {name: features_of(images, network, console=run.console) for name, images in sets.items()}
    real = features.pop("held_out")
    seed = run.seed_of("evaluation/subsets")
    distances = {
        "KID": {name: kernel_distance(real, other, seed=seed) for name, other in features.items()},
        "FD": {name: frechet_distance(real, other) for name, other in features.items()},
    }
    figures = {}
    for kind, found in distances.items():
        on = f"against as many held-out ones, features of EfficientNet-Lite0 at {SIDE} pixels"
        figures[f"{kind}-lite0"] = Figure(
            value=found["sampled"],
            ceiling=found["training"],
            floor=found["without_transform"],
            meaning=f"{count} samples from the prior {on} (so not FID); ceiling: training pictures, real against real; "
            "floor: noise decoded without T",
        )
        figures[f"{kind}-lite0_reconstructed"] = Figure(
            value=found["reconstructed"],
            ceiling=found["training"],
            meaning=f"{count} plain reconstructions of other held-out pictures {on}",
        )
    return figures
