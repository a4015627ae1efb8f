"""The contract between training and serving: a directory of ONNX graphs and the manifest that describes them."""

from iin_bundle.errors import BundleError
from iin_bundle.factors import FactorLayout, FactorSlice
from iin_bundle.manifest import (
    FORMAT_VERSION,
    Figure,
    FileEntry,
    Graph,
    ImageSpec,
    LogLikelihoodQuantiles,
    Manifest,
    Provenance,
    TensorSpec,
    Tolerances,
)
from iin_bundle.reading import Bundle, check_golden, read_bundle
from iin_bundle.writing import file_entry, write_manifest

__all__ = [
    "FORMAT_VERSION",
    "Bundle",
    "BundleError",
    "FactorLayout",
    "FactorSlice",
    "Figure",
    "FileEntry",
    "Graph",
    "ImageSpec",
    "LogLikelihoodQuantiles",
    "Manifest",
    "Provenance",
    "TensorSpec",
    "Tolerances",
    "check_golden",
    "file_entry",
    "read_bundle",
    "write_manifest",
]
