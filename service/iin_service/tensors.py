"""Tensors of the Open Inference Protocol as numpy arrays, and back."""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from iin_api.inference import grpc_service_pb2 as pb
from numpy.typing import NDArray

from iin_service.errors import InvalidInput, short

__all__ = ["Tensor", "TensorSpec", "axes", "read_tensors", "wanted_outputs", "write_tensors"]

ANY = -1
MOST_AXES = 100  # of a shape in a message, which has room for fewer
# By the protocol's name: numpy's type and the field of typed contents. No model here takes or gives other types.
DATATYPES: dict[str, tuple[Any, str]] = {
    "FP32": (np.dtype("<f4"), "fp32_contents"),
    "FP64": (np.dtype("<f8"), "fp64_contents"),
    "INT64": (np.dtype("<i8"), "int64_contents"),
    "UINT64": (np.dtype("<u8"), "uint64_contents"),
    "BYTES": (np.dtype(object), "bytes_contents"),
}
# Parameters of Triton's extensions: a tensor in shared memory, and an output as classes in place of its numbers.
SHARED = "shared_memory_region"
OTHER_FORMS = ("classification", SHARED)


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that a model takes or gives."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """-1 for an axis of any length, 1 or more."""

    @property
    def item_bytes(self) -> int:
        """Bytes of one item, of a tensor of numbers."""
        return int(DATATYPES[self.datatype][0].itemsize) * math.prod(self.shape[1:])

    def message(self) -> pb.ModelMetadataResponse.TensorMetadata:
        """The specification as metadata."""
        return pb.ModelMetadataResponse.TensorMetadata(name=self.name, datatype=self.datatype, shape=self.shape)


@dataclass(frozen=True)
class Tensor:
    """A tensor of a request."""

    array: NDArray[Any]
    field: str
    """Where it stands in the request, for error messages."""


def read_tensors(request: pb.ModelInferRequest, specs: Sequence[TensorSpec], most: int) -> dict[str, Tensor]:
    """The tensors of a request by name, each checked against the one of `specs` that has its name; `most` items."""
    known, raw, found = {spec.name: spec for spec in specs}, request.raw_input_contents, {}
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput("raw_input_contents", f"{len(request.inputs)} entries, one an input, or none", f"{len(raw)}")
    for index, tensor in enumerate(request.inputs):
        field = f"inputs[{index}]"
        if tensor.name not in known:
            raise InvalidInput(f"{field}.name", f"one of {', '.join(known)}", repr(short(tensor.name)))
        if tensor.name in found:
            raise InvalidInput(f"{field}.name", "every input at most once", f"{tensor.name!r} again")
        if SHARED in tensor.parameters:
            raise InvalidInput(f"{field}.parameters", "the tensor itself", SHARED)
        if raw and tensor.HasField("contents"):
            raise InvalidInput(f"{field}.contents", "no contents beside raw_input_contents", "both")
        spec = known[tensor.name]
        if tensor.datatype != spec.datatype:
            raise InvalidInput(f"{field}.datatype", f"{spec.datatype} for {spec.name}", repr(short(tensor.datatype)))
        shape = tuple(tensor.shape[: len(spec.shape) + 1])
        if len(shape) != len(spec.shape) or any(
            given < 1 or wanted not in (ANY, given) for given, wanted in zip(shape, spec.shape, strict=True)
        ):
            expected = f"{list(spec.shape)}{', where -1 is any length of 1 or more' if ANY in spec.shape else ''}"
            raise InvalidInput(f"{field}.shape", expected, axes(tensor.shape))
        if spec.shape[0] == ANY and shape[0] > most:
            raise InvalidInput(field, f"at most {most} items in a call", str(shape[0]), "split them over several calls")
        if raw:
            array = _from_raw(raw[index], spec.datatype, shape, f"raw_input_contents[{index}]")
        else:
            array = _from_contents(tensor.contents, spec.datatype, shape, f"{field}.contents")
        found[spec.name] = Tensor(array, field)
    return found


def axes(shape: Sequence[int]) -> str:
    """A shape for a message, cut off: a caller's may have millions of axes."""
    return str(list(shape[:MOST_AXES]))


def _from_raw(data: bytes, datatype: str, shape: tuple[int, ...], field: str) -> NDArray[Any]:
    count = math.prod(shape)
    if datatype == "BYTES":
        elements = list(islice(_byte_elements(data, field), count + 1))
        if len(elements) != count:
            given = str(len(elements)) if len(elements) < count else "more"
            raise InvalidInput(field, f"{count} elements for shape {list(shape)}", given)
        return np.array(elements, object).reshape(shape)
    dtype = DATATYPES[datatype][0]
    if len(data) != dtype.itemsize * count:
        raise InvalidInput(
            field, f"{dtype.itemsize * count} bytes for {datatype} of shape {list(shape)}", str(len(data))
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _byte_elements(data: bytes, field: str) -> Iterator[bytes]:
    position = 0
    while position < len(data):
        start = position + 4
        length = struct.unpack_from("<I", data, position)[0] if start <= len(data) else None
        if length is None or start + length > len(data):
            raise InvalidInput(field, "each element as its length in 4 bytes, then its bytes", "an element that is cut")
        yield data[start : start + length]
        position = start + length


def _from_contents(contents: pb.InferTensorContents, datatype: str, shape: tuple[int, ...], field: str) -> NDArray[Any]:
    dtype, name = DATATYPES[datatype]
    if others := [one.name for one, _ in contents.ListFields() if one.name != name]:
        raise InvalidInput(f"{field}.{others[0]}", f"{name} alone for {datatype}", f"{others[0]}")
    values, count = getattr(contents, name), math.prod(shape)
    if len(values) != count:
        raise InvalidInput(f"{field}.{name}", f"{count} elements for shape {list(shape)}", str(len(values)))
    # Numbers are read as a buffer: a list of Python's own would take many times the memory and time.
    return np.array(list(values) if datatype == "BYTES" else values, dtype).reshape(shape)


def wanted_outputs(request: pb.ModelInferRequest, names: Sequence[str]) -> list[str]:
    """The outputs that the request names, out of `names`; all where it names none."""
    wanted: list[str] = []
    for index, output in enumerate(request.outputs):  # one by one: of a million the first few are wrong
        name = output.name
        if name not in names:
            raise InvalidInput(f"outputs[{index}].name", f"one of {', '.join(names)}", repr(short(name)))
        if name in wanted:
            raise InvalidInput(f"outputs[{index}].name", "every output at most once", f"{name!r} again")
        if asked := [one for one in OTHER_FORMS if one in output.parameters]:
            raise InvalidInput(f"outputs[{index}].parameters", "the tensor itself", " and ".join(asked))
        wanted.append(name)
    return wanted or list(names)


def write_tensors(
    request: pb.ModelInferRequest, outputs: dict[str, NDArray[Any]], wanted: Sequence[str], version: str
) -> pb.ModelInferResponse:
    """The answer with the `wanted` outputs: raw or typed contents, as the request had."""
    response = pb.ModelInferResponse(model_name=request.model_name, model_version=version, id=request.id)
    for name in wanted:
        array = outputs[name]
        datatype = "FP64" if array.dtype == np.float64 else "FP32"
        dtype, field = DATATYPES[datatype]
        tensor = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        data = np.ascontiguousarray(array, dtype).tobytes()
        if request.raw_input_contents:
            response.raw_output_contents.append(data)
        else:
            tensor.contents.MergeFromString(_packed(field, data))
    return response


def _packed(field: str, data: bytes) -> bytes:
    """Typed contents in protobuf's encoding: the tag of `field`, the length, then `data`, numbers of a fixed width.

    Through Python's own numbers, 256 pictures would hold the event loop a hundred times as long.
    """
    head, length = bytearray([pb.InferTensorContents.DESCRIPTOR.fields_by_name[field].number << 3 | 2]), len(data)
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return bytes(head) + data
