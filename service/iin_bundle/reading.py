"""Reading a bundle and refusing every one that cannot be trusted."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iin_bundle.errors import BundleError
from iin_bundle.json_schema import from_json
from iin_bundle.manifest import (
    BATCH_AXIS,
    FORMAT_VERSION,
    MANIFEST_NAME,
    FileEntry,
    Graph,
    Manifest,
)
from iin_bundle.onnx_references import external_data_paths
from iin_bundle.writing import file_digest

__all__ = ["GRAPH_SIGNATURES", "Bundle", "Run", "check_golden", "read_bundle"]

Arrays = Mapping[str, NDArray[np.float32]]
Run = Callable[[str, NDArray[np.float32]], tuple[NDArray[np.float32], ...]]
"""Runs the graph of a role on its one input, returning its outputs in the manifest's order."""

# Role -> (what its input holds, what its outputs hold). `head` may give any number of classes.
GRAPH_SIGNATURES = {
    "encoder": ("image", ("latent",)),
    "transform": ("latent", ("factors", "scalar")),
    "inverse": ("factors", ("latent", "scalar")),
    "decoder": ("latent", ("image",)),
    "head": ("latent", ("classes",)),
}
REQUIRED_GRAPHS = ("encoder", "transform", "inverse")


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files, manifest and graph signatures have been verified."""

    directory: Path
    manifest: Manifest
    golden: Arrays
    """Recorded inputs and outputs by `role/tensor name`."""

    def graph_path(self, role: str) -> Path:
        """Where the ONNX file of a graph lies."""
        return self.directory / self.manifest.graphs[role].file.path


def read_bundle(directory: str | Path) -> Bundle:
    """Read `directory` and verify version, schema, factor cover, shapes, hashes and paths.

    The graphs are not run: pass the result and a way to run them to `check_golden`.

    Raises:
        BundleError: naming the file or field at fault, what was expected, what was found, the remedy.

    """
    directory = Path(directory)
    manifest = _read_manifest(directory)
    _check_signatures(manifest)
    for role, graph in manifest.graphs.items():
        for entry in (graph.file, *graph.external_data):
            _check_file(directory, entry)
        _check_external_data(directory, role, graph)
    _check_file(directory, manifest.golden)
    return Bundle(directory, manifest, _read_golden(directory, manifest))


def _read_manifest(directory: Path) -> Manifest:
    if not directory.is_dir():
        raise BundleError(f"{directory}: expected a bundle directory, found none; check the path")
    path = directory / MANIFEST_NAME
    if not path.is_file():
        raise BundleError(
            f"{path}: expected the manifest, found none; the export did not finish, or this is not a bundle"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: expected JSON, but it does not parse: {error}") from error
    version = value.get("format_version") if isinstance(value, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{MANIFEST_NAME}.format_version: expected {FORMAT_VERSION}, got {version!r}; "
            "export again with this version of the software, or serve with the version that exported it"
        )
    manifest: Manifest = from_json(Manifest, value, MANIFEST_NAME)
    _check_values(manifest)
    return manifest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; json itself would keep the last of two values of one name."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:50]!r} stands twice in one object")
        found[name] = value
    return found


def _check_values(manifest: Manifest) -> None:
    image = manifest.image
    if image.layout != "NCHW" or image.channels not in (1, 3) or min(image.shape) < 1:
        raise BundleError(
            f"image: expected layout NCHW with 1 or 3 channels and a positive size, got {image.layout} {image.shape}"
        )
    if not image.minimum < image.maximum:
        raise BundleError(f"image: expected minimum < maximum, got {image.minimum} and {image.maximum}")
    if not manifest.latent_shape or min(manifest.latent_shape) < 1:
        raise BundleError(f"latent_shape: expected positive sizes, got {list(manifest.latent_shape)}")
    _ = manifest.layout  # raises where the factors do not cover z~ exactly once
    quantiles = manifest.log_likelihood_quantiles
    shares, values = quantiles.probabilities, quantiles.values
    if (
        not len(shares) == len(values) >= 2
        or not all(0 <= one <= 1 for one in shares)
        or (np.diff(shares) <= 0).any()
        or (np.diff(values) < 0).any()
    ):
        raise BundleError(
            "log_likelihood_quantiles: expected two increasing rows of equal length, at least 2, "
            "with probabilities in [0, 1], each once; export again"
        )
    if not 0 <= manifest.round_trip_error <= manifest.tolerances.round_trip:
        raise BundleError(
            f"round_trip_error: expected at most the tolerance {manifest.tolerances.round_trip:g}, "
            f"got {manifest.round_trip_error:g}; the transform is not invertible enough to serve"
        )


def _check_signatures(manifest: Manifest) -> None:
    missing = [role for role in REQUIRED_GRAPHS if role not in manifest.graphs]
    unknown = [role for role in manifest.graphs if role not in GRAPH_SIGNATURES]
    if missing or unknown:
        raise BundleError(
            f"graphs: expected {', '.join(REQUIRED_GRAPHS)} and optionally decoder and head; "
            f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}"
        )
    shapes: dict[str, tuple[int, ...]] = {
        "image": manifest.image.shape,
        "latent": manifest.latent_shape,
        "factors": (manifest.size,),
        "scalar": (),
    }
    for role, graph in manifest.graphs.items():
        takes, gives = GRAPH_SIGNATURES[role]
        for side, specs, contents in (
            ("inputs", graph.inputs, (takes,)),
            ("outputs", graph.outputs, gives),
        ):
            if len(specs) != len(contents):
                raise BundleError(f"graphs.{role}.{side}: expected {len(contents)}, got {len(specs)}")
            for spec, content in zip(specs, contents, strict=True):
                where = f"graphs.{role}.{side}.{spec.name}"
                if spec.dtype != "float32":
                    raise BundleError(f"{where}: expected dtype float32, got {spec.dtype}")
                if content == "classes":
                    batch, classes = spec.shape if len(spec.shape) == 2 else (None, None)
                    if batch != BATCH_AXIS or not isinstance(classes, int) or classes < 1:
                        raise BundleError(f"{where}: expected shape [batch, classes], got {list(spec.shape)}")
                elif spec.shape != (BATCH_AXIS, *shapes[content]):
                    raise BundleError(
                        f"{where}: expected shape {[BATCH_AXIS, *shapes[content]]}, got {list(spec.shape)}"
                    )


def _inside(directory: Path, path: str) -> Path | None:
    """The file that `path` means, or None where it leaves the bundle (by `..`, a root or a link)."""
    relative = PurePosixPath(path)
    if not path or relative.is_absolute() or ".." in relative.parts or "\\" in path:
        return None
    full = directory / relative
    try:
        return full if full.resolve().is_relative_to(directory.resolve()) else None
    except (OSError, RuntimeError, ValueError):  # a link to itself, a null byte
        return None


def _check_file(directory: Path, entry: FileEntry) -> None:
    full = _inside(directory, entry.path)
    if full is None:
        raise BundleError(f"{entry.path}: expected a path inside the bundle, got one that leaves it")
    if not os.path.isfile(full):  # unlike Path.is_file, false for a name too long as well
        raise BundleError(f"{entry.path}: expected a file, found none; copy the bundle again")
    if full.stat().st_size != entry.bytes:
        raise BundleError(
            f"{entry.path}: expected {entry.bytes} bytes, found {full.stat().st_size}; copy the bundle again"
        )
    digest = file_digest(full)
    if digest != entry.sha256:
        raise BundleError(
            f"{entry.path}: expected sha256 {entry.sha256}, found {digest}; "
            "the file was altered or damaged, copy the bundle again"
        )


def _check_external_data(directory: Path, role: str, graph: Graph) -> None:
    try:
        found = external_data_paths((directory / graph.file.path).read_bytes())
    except BundleError as error:
        raise BundleError(f"{graph.file.path}: {error}; export the bundle again") from error
    folder = PurePosixPath(graph.file.path).parent
    declared = {entry.path for entry in graph.external_data}
    for path in sorted(found):
        located = _inside(directory, str(folder / path)) if path else None
        if located is None:
            raise BundleError(
                f"{graph.file.path}: external data at {path!r} leaves the bundle; export it with its data inside"
            )
        if str(folder / path) not in declared:
            raise BundleError(
                f"{graph.file.path}: external data at {path!r} is not listed in graphs.{role}.external_data, "
                "so it cannot be verified; export the bundle again"
            )


def _read_golden(directory: Path, manifest: Manifest) -> Arrays:
    name = manifest.golden.path
    try:
        with np.load(directory / name, allow_pickle=False) as file:
            golden = {key: file[key] for key in file.files}
        if not all(isinstance(array, np.ndarray) for array in golden.values()):
            raise ValueError("it holds something else than arrays")
    except Exception as error:  # damaged files make zipfile, zlib, tokenize and others raise what they like
        raise BundleError(f"{name}: expected arrays of golden inputs, but it does not read: {error}") from error
    for role, graph in manifest.graphs.items():
        for spec in (*graph.inputs, *graph.outputs):
            key = f"{role}/{spec.name}"
            if key not in golden:
                raise BundleError(f"{name}: expected the array {key}, got {', '.join(sorted(golden))}")
            array = golden[key]
            if array.dtype != np.float32 or array.shape[1:] != spec.shape[1:] or array.ndim != len(spec.shape):
                raise BundleError(
                    f"{name}: {key}: expected float32 of shape {list(spec.shape)}, "
                    f"got {array.dtype} of {list(array.shape)}"
                )
            if len(array) == 0 or not np.isfinite(array).all():
                raise BundleError(f"{name}: {key}: expected at least one row of finite values")
    return golden


def check_golden(bundle: Bundle, run: Run) -> dict[str, float]:
    """Run every graph on its recorded input and compare with the recorded outputs.

    Returns:
        The largest error per role, relative to the largest magnitude of the output or 1.

    Raises:
        BundleError: for the first graph past the tolerance, with the measured and the allowed error, or with an
            output that is not finite.

    """
    allowed = bundle.manifest.tolerances
    errors = {}
    for role, graph in bundle.manifest.graphs.items():
        outputs = run(role, bundle.golden[f"{role}/{graph.inputs[0].name}"])
        errors[role] = 0.0
        for spec, output in zip(graph.outputs, outputs, strict=True):
            expected = bundle.golden[f"{role}/{spec.name}"]
            if not np.isfinite(output).all():  # not left to max(), which passes over NaN
                raise BundleError(
                    f"golden check: {role}: expected finite values of {spec.name}, got NaN or infinity; "
                    "this runtime does not reproduce the exported graph"
                )
            error = _error(output, expected) / max(1.0, float(np.abs(expected).max()))
            errors[role] = max(errors[role], error)
        if not errors[role] <= allowed.golden:
            raise BundleError(
                f"golden check: {role}: measured error {errors[role]:.3g}, allowed {allowed.golden:.3g}; "
                "this runtime does not reproduce the exported graph"
            )
    latent = bundle.golden[f"transform/{bundle.manifest.graphs['transform'].inputs[0].name}"]
    error = _error(run("inverse", run("transform", latent)[0])[0], latent)
    if not error <= allowed.round_trip:
        raise BundleError(
            f"golden check: inverse(transform(z)): measured error {error:.3g}, allowed {allowed.round_trip:.3g}; "
            "the two graphs are not inverses of each other"
        )
    return errors | {"round trip": error}


def _error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
