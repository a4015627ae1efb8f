"""From trained networks to a verified bundle: ONNX graphs, golden inputs, model card, manifest."""

import datetime
import logging
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from iin_bundle import (
    FORMAT_VERSION,
    Bundle,
    FactorLayout,
    Graph,
    ImageSpec,
    LogLikelihoodQuantiles,
    Manifest,
    Provenance,
    TensorSpec,
    Tolerances,
    check_golden,
    file_entry,
    read_bundle,
    write_manifest,
)
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from iin_training.evaluation import Evaluation
from iin_training.flows import Flow
from iin_training.git import git_commit
from iin_training.model_card import write_model_card
from iin_training.models.autoencoder import Autoencoder

__all__ = ["ExportError", "Exported", "export_bundle", "open_runner"]

PARITY_TOLERANCE = 1e-4
ROUND_TRIP_TOLERANCE = 1e-4
PARITY_BATCHES = (1, 3, 32)
GOLDEN_ROWS = 4
LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
Array = NDArray[np.float32]


class ExportError(RuntimeError):
    """A graph that does not reproduce its network; nothing is left behind that could be served."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What goes into a bundle, besides the networks."""

    name: str
    version: str
    image: ImageSpec
    layout: FactorLayout
    evaluation: Evaluation
    latents: Tensor
    """Held-out latents for the round trip, `(N, D)`."""
    images: Tensor
    """Held-out pictures for parity, golden inputs and previews, `(M, C, H, W)`, M >= 32."""
    captions: list[str]
    """What each of the first pictures shows, for file names; previews are written for these."""
    recipe: str
    seed: int
    data_set: str
    data_set_sha256: str


class _Encode(nn.Module):
    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.encode(image)


class _Decode(nn.Module):
    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor) -> Tensor:
        return self.model.decode(latent)


class _Inverse(nn.Module):
    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, factors: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.inverse(factors)


def export_bundle(directory: Path, encoder: Autoencoder, transform: Flow, what: Exported) -> Bundle:
    """Write, verify and return a bundle at `directory`, replacing one that was there.

    It is built beside its place and moved there when everything has been checked: parity of every
    graph with its network at batches of 1, 3 and 32, the round trip, then reading and golden run.
    What an interrupted export left beside the place is cleared away first.

    Raises:
        ExportError: naming the graph, the measured and the allowed error.

    """
    building = directory.with_name(directory.name + ".partial")
    shutil.rmtree(building, ignore_errors=True)
    _settle(directory)
    building.mkdir(parents=True)
    encoder, transform = encoder.cpu().eval(), transform.cpu().eval()
    images, latents = what.images.cpu().contiguous(), what.latents.cpu()
    with torch.no_grad():
        factors = transform(latents[: max(PARITY_BATCHES)])[0]
    networks: dict[str, tuple[nn.Module, Tensor, tuple[str, ...], tuple[str, ...]]] = {
        "encoder": (_Encode(encoder), images, ("image",), ("latent",)),
        "transform": (transform, latents, ("latent",), ("factors", "log_abs_det")),
        "inverse": (_Inverse(transform), factors, ("factors",), ("latent", "log_abs_det")),
        "decoder": (_Decode(encoder), latents, ("latent",), ("image",)),
    }
    graphs: dict[str, Graph] = {}
    golden: dict[str, Array] = {}
    for role, (network, inputs, input_names, output_names) in networks.items():
        path = building / f"{role}.onnx"
        _export_graph(network, inputs[:2], path, input_names, output_names)
        run = open_runner(path)
        for batch in PARITY_BATCHES:
            _check_parity(role, network, run, inputs[:batch])
        rows = inputs[:GOLDEN_ROWS]
        arrays = dict(zip((*input_names, *output_names), (rows, *_outputs(network, rows)), strict=True))
        golden |= {f"{role}/{name}": array.numpy() for name, array in arrays.items()}
        specs = [_spec(name, array) for name, array in arrays.items()]
        split = len(input_names)
        graphs[role] = Graph(
            file=file_entry(building, path.name), inputs=tuple(specs[:split]), outputs=tuple(specs[split:])
        )
    np.savez(building / "golden.npz", allow_pickle=False, **golden)
    error = _round_trip_error(building, latents.numpy())
    _write_samples(building / "samples", images, what.captions)
    probabilities, values = what.evaluation.quantiles()
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=what.name,
        version=what.version,
        family="iin",
        graphs=graphs,
        image=what.image,
        latent_shape=tuple(latents.shape[1:]),
        factors=what.layout.slices,
        log_likelihood_quantiles=LogLikelihoodQuantiles(probabilities=probabilities, values=values),
        round_trip_error=error,
        tolerances=Tolerances(golden=PARITY_TOLERANCE, round_trip=ROUND_TRIP_TOLERANCE),
        golden=file_entry(building, "golden.npz"),
        provenance=_provenance(what),
        evaluation=what.evaluation.figures,
    )
    write_model_card(building / "MODEL_CARD.md", manifest)
    write_manifest(building, manifest)
    bundle = read_bundle(building)
    runs = {role: open_runner(bundle.graph_path(role)) for role in manifest.graphs}
    check_golden(bundle, lambda role, items: runs[role](items))
    _replace(directory, building)
    return Bundle(directory, bundle.manifest, bundle.golden)


def _replace(directory: Path, building: Path) -> None:
    """Put `building` in the place of `directory`; the old bundle is there, or beside it, until the new one is."""
    if directory.exists():
        directory.rename(_aside(directory))
    building.rename(directory)
    _settle(directory)


def _settle(directory: Path) -> None:
    """Remove the bundle that was moved aside or, where no other took its place, move it back."""
    if not directory.exists() and _aside(directory).exists():
        _aside(directory).rename(directory)
    shutil.rmtree(_aside(directory), ignore_errors=True)


def _aside(directory: Path) -> Path:
    return directory.with_name(directory.name + ".replaced")


def _export_graph(
    network: nn.Module, example: Tensor, path: Path, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own dependencies
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which is not needed
        torch.onnx.export(
            network,
            (example,),
            path,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    onnx.checker.check_model(path, full_check=True)


def open_runner(path: Path) -> Callable[[Array], tuple[Array, ...]]:
    """A function that runs an ONNX file of one input on the CPU."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(items: Array) -> tuple[Array, ...]:
        return tuple(session.run(None, {name: items}))

    return run


@torch.no_grad()
def _outputs(network: nn.Module, inputs: Tensor) -> tuple[Tensor, ...]:
    outputs = network(inputs)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _check_parity(role: str, network: nn.Module, run: Callable[[Array], tuple[Array, ...]], inputs: Tensor) -> None:
    for expected, found in zip(_outputs(network, inputs), run(inputs.numpy()), strict=True):
        scale = max(1.0, float(expected.abs().max()))
        error = float(np.abs(found - expected.numpy()).max()) / scale if found.shape == expected.shape else np.inf
        if not error <= PARITY_TOLERANCE:
            raise ExportError(
                f"{role}: onnxruntime differs from torch by {error:.3g} at batch {len(inputs)}, "
                f"allowed {PARITY_TOLERANCE:g}"
            )


def _round_trip_error(directory: Path, latents: Array) -> float:
    forward, back = (open_runner(directory / f"{role}.onnx") for role in ("transform", "inverse"))
    parts = np.array_split(latents, max(1, len(latents) // 500))
    error = max(float(np.abs(back(forward(part)[0])[0] - part).max()) for part in parts)
    if not error <= ROUND_TRIP_TOLERANCE:
        raise ExportError(
            f"inverse(transform(z)) differs from z by {error:.3g} over {len(latents)} held-out latents, "
            f"allowed {ROUND_TRIP_TOLERANCE:g}"
        )
    return error


def _spec(name: str, array: Tensor) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=("batch", *array.shape[1:]))


def _write_samples(folder: Path, images: Tensor, captions: list[str]) -> None:
    folder.mkdir()
    for index, caption in enumerate(captions):
        pixels = ((images[index] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{index:02d}-{caption}.png")


def _provenance(what: Exported) -> Provenance:
    return Provenance(
        recipe=what.recipe,
        seed=what.seed,
        git_commit=git_commit(Path(__file__)),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={library: version(library) for library in LIBRARIES},
        data_set=what.data_set,
        data_set_sha256=what.data_set_sha256,
    )
