"""Which external files an ONNX file refers to, found without the onnx package.

Only the few message fields that can lead to a tensor are followed, in protobuf's wire format, so
that the serving image needs neither onnx nor trust in the runtime's own path checks.
"""

from collections.abc import Iterator

from iin_bundle.errors import BundleError

__all__ = ["external_data_paths"]

# Message type -> {field number: message type}, from onnx.proto (ONNX 1.23). TensorProto.external_data is
# field 13: key/value entries, of which key "location" holds the path.
LEADS_TO_TENSORS = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}


def external_data_paths(model: bytes) -> set[str]:
    """Paths, as written in the model, of all files with external tensor data.

    Raises:
        BundleError: if `model` is not a well-formed protobuf message.

    """
    try:
        return set(_locations(memoryview(model), "Model"))
    except (IndexError, ValueError, RecursionError) as error:
        raise BundleError(f"expected an ONNX file, got bytes that do not parse ({error})") from error


def _locations(message: memoryview, kind: str) -> Iterator[str]:
    if kind == "Entry":
        entry = {number: bytes(value) for number, value in _fields(message)}
        if entry.get(1) == b"location":
            yield entry.get(2, b"").decode()
        return
    follow = LEADS_TO_TENSORS[kind]
    for number, value in _fields(message):
        if number in follow:
            yield from _locations(value, follow[number])


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and contents of every length-delimited field; scalars are passed over."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            _, position = _varint(message, position)
        elif wire_type == 1:
            position += 8
        elif wire_type == 5:
            position += 4
        elif wire_type == 2:
            length, position = _varint(message, position)
            if position + length > len(message):
                raise ValueError("a field ends past the end of its message")
            yield number, message[position : position + length]
            position += length
        else:
            raise ValueError(f"wire type {wire_type} at byte {position}")
    if position > len(message):
        raise ValueError("the message ends inside a field")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number longer than 10 bytes")
