"""From trained networks to a verified bundle: ONNX graphs, golden inputs, model card, manifest."""

import datetime
import shutil
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
from torch import Tensor

from iin_training.evaluation import Evaluation
from iin_training.flow_graphs import flow_graph
from iin_training.flows import Flow
from iin_training.git import git_commit
from iin_training.graphs import (
    PARITY_BATCHES,
    PARITY_TOLERANCE,
    TENSORS,
    ExportError,
    Network,
    data_path,
    open_runner,
    outputs_of,
    write_graph,
)
from iin_training.model_card import model_card
from iin_training.models.frozen import FrozenModel
from iin_training.quantised_flow import QuantisedFlow

__all__ = ["Exported", "export_bundle", "read_checked"]

ROUND_TRIP_TOLERANCE = 1e-4
ROUND_TRIP_SHARE = 1e-5  # of the latents' root mean square, where that is more: float32 keeps no more decimals
INT8_ROUND_TRIP_SHARE = 0.25  # of the latents' root mean square: past it int8 is refused
INT8_ROUND_TRIP_ROOM = 1.5  # tolerance over the largest error measured
GOLDEN_ROWS = 4
TRIED = 256  # latents among which there are enough that stay off the edges between int8 codes
LIBRARIES = ("torch", "onnx", "onnxscript", "numpy")
Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What goes into a bundle, besides the networks."""

    name: str
    version: str
    layout: FactorLayout
    evaluation: Evaluation
    latents: Tensor
    """Held-out latents for the round trip, `(N, *latent_shape)`, N >= 32."""
    images: Tensor
    """Held-out pictures for parity, golden inputs and previews, `(M, C, H, W)`, M >= 32."""
    captions: tuple[str, ...]
    """What each of the first pictures shows, for file names; previews are written for these."""
    recipe: str
    seed: int
    data_set: str
    data_set_sha256: str


def export_bundle(directory: Path, model: FrozenModel, transform: Flow, what: Exported) -> Bundle:
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
    model, transform = model.cpu(), transform.cpu().eval()
    images, latents = what.images.cpu().contiguous(), what.latents.cpu()
    graphs, golden = _write_graphs(building, model, transform, images, latents)
    np.savez(building / "golden.npz", allow_pickle=False, **golden)
    error, allowed = _round_trip(building, latents.numpy(), quantised=isinstance(transform, QuantisedFlow))
    (channels, height, width), (minimum, maximum) = model.image_shape, model.value_range
    image = ImageSpec(layout="NCHW", channels=channels, height=height, width=width, minimum=minimum, maximum=maximum)
    _write_samples(building / "samples", images, what.captions, image)
    probabilities, values = what.evaluation.quantiles()
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=what.name,
        version=what.version,
        family="iin",
        graphs=graphs,
        image=image,
        latent_shape=model.latent_shape,
        factors=what.layout.slices,
        log_likelihood_quantiles=LogLikelihoodQuantiles(probabilities=probabilities, values=values),
        round_trip_error=error,
        tolerances=Tolerances(golden=PARITY_TOLERANCE, round_trip=allowed),
        golden=file_entry(building, "golden.npz"),
        provenance=_provenance(what),
        evaluation=what.evaluation.figures,
    )
    (building / "MODEL_CARD.md").write_text(model_card(manifest), encoding="utf-8")
    write_manifest(building, manifest)
    bundle = read_checked(building)
    _replace(directory, building)
    return Bundle(directory, bundle.manifest, bundle.golden)


def read_checked(directory: Path) -> Bundle:
    """The bundle in `directory`, run on its golden inputs; `BundleError` where it is not whole or differs."""
    bundle = read_bundle(directory)
    runs = {role: open_runner(bundle.graph_path(role)) for role in bundle.manifest.graphs}
    check_golden(bundle, lambda role, items: runs[role](items))
    return bundle


def _write_graphs(
    directory: Path, model: FrozenModel, transform: Flow, images: Tensor, latents: Tensor
) -> tuple[dict[str, Graph], dict[str, Array]]:
    """Write every graph, compared with its network; returns what the manifest says of them, and the golden arrays."""
    tried = transform.steady(latents[:TRIED]) if isinstance(transform, QuantisedFlow) else latents
    if len(tried) < GOLDEN_ROWS:
        raise ExportError(
            f"transform: expected an int8 T that gives nearly all latents the same factors on any processor, got "
            f"{len(tried)} of {TRIED} whose factors do not depend on the last bits; export in float32"
        )
    with torch.no_grad():
        factors = transform(tried[: max(PARITY_BATCHES)])[0]
    networks: dict[str, Network] = {**model.networks(), "transform": transform, "inverse": transform.inverse}
    graphs: dict[str, Graph] = {}
    golden: dict[str, Array] = {}
    for role, (input_name, output_names) in TENSORS.items():
        if (network := networks.get(role)) is None:
            continue
        path, inputs = directory / f"{role}.onnx", {"encoder": images, "inverse": factors}.get(role, tried)
        write_graph(role, network, path, inputs, _written(role, transform))
        rows = inputs[:GOLDEN_ROWS]
        arrays = dict(zip((input_name, *output_names), (rows, *outputs_of(network, rows)), strict=True))
        golden |= {f"{role}/{name}": array.numpy() for name, array in arrays.items()}
        given, *found = (_spec(name, array) for name, array in arrays.items())
        graphs[role] = Graph(
            file=file_entry(directory, path.name),
            inputs=(given,),
            outputs=tuple(found),
            external_data=(file_entry(directory, data_path(path).name),) if data_path(path).exists() else (),
        )
    return graphs, golden


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


def _written(role: str, transform: Flow) -> onnx.ModelProto | None:
    """The graph of T or its inverse, which we write ourselves; None for those of the model, which torch exports."""
    if role not in ("transform", "inverse"):
        return None
    inverse = role == "inverse"
    return (
        transform.graph(inverse=inverse)
        if isinstance(transform, QuantisedFlow)
        else flow_graph(transform, inverse=inverse)
    )


def _round_trip(directory: Path, latents: Array, *, quantised: bool) -> tuple[float, float]:
    """The largest error of the exported graphs' round trip, and the tolerance that goes into the manifest.

    In int8 few latents go over the edge between two codes and come back some hundredths off: the tolerance then follows
    what was measured, with room for latents that were not.
    """
    size = float(np.sqrt(np.mean(np.square(latents, dtype=np.float64))))
    allowed = INT8_ROUND_TRIP_SHARE * size if quantised else max(ROUND_TRIP_TOLERANCE, ROUND_TRIP_SHARE * size)
    forward, back = (open_runner(directory / f"{role}.onnx") for role in ("transform", "inverse"))
    parts = np.array_split(latents, max(1, len(latents) // 500))
    errors = [np.abs(back(forward(part)[0])[0] - part).max() for part in parts]
    error = float(np.max(errors))  # which keeps NaN; max() may pass over it
    if not error <= allowed:
        raise ExportError(
            f"inverse(transform(z)) differs from z by {error:.3g} over {len(latents)} held-out latents, "
            f"allowed {allowed:g}"
        )
    return error, max(ROUND_TRIP_TOLERANCE, INT8_ROUND_TRIP_ROOM * error) if quantised else allowed


def _spec(name: str, array: Tensor) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=("batch", *array.shape[1:]))


def _write_samples(folder: Path, images: Tensor, captions: tuple[str, ...], spec: ImageSpec) -> None:
    folder.mkdir()
    levels = (images - spec.minimum) * (255 / (spec.maximum - spec.minimum))
    for index, caption in enumerate(captions):
        pixels = levels[index].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        picture = Image.fromarray(pixels[:, :, 0] if spec.channels == 1 else pixels)
        picture.save(folder / f"{index:02d}-{caption}.png")


def _provenance(what: Exported) -> Provenance:
    return Provenance(
        recipe=what.recipe,
        seed=what.seed,
        git_commit=git_commit(Path(__file__)),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        # A package of another name may bring it: onnxruntime-gpu.
        versions={library: version(library) for library in LIBRARIES} | {"onnxruntime": onnxruntime.__version__},
        data_set=what.data_set,
        data_set_sha256=what.data_set_sha256,
    )
