"""Request messages from Python values; ValueError for what cannot be sent, OSError for unreadable files."""

import io
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, get_args

import numpy as np
from iin_api.v1 import interpretation_pb2 as pb
from numpy.typing import ArrayLike, DTypeLike, NDArray
from PIL import Image

from iin_client.inputs import (
    Edit,
    Factors,
    Fixed,
    Input,
    Inputs,
    Interpolation,
    Latent,
    LinearWalk,
    Output,
    RandomWalk,
    RawImage,
    Replace,
    Resample,
    SetValue,
    Shift,
    Values,
    Walk,
)
from iin_client.upright import upright

__all__ = [
    "edit_request",
    "edit_stream_request",
    "interpret_request",
    "interpret_stream_request",
    "respond_request",
    "sample_request",
    "traverse_request",
]

_PNG_MODES = ("L", "LA", "P", "RGB", "RGBA")


def interpret_request(inputs: Inputs, *, resize: bool) -> pb.InterpretRequest:
    """Request for `Client.interpret`."""
    return pb.InterpretRequest(inputs=_inputs(inputs, "inputs"), resize=resize)


def interpret_stream_request(item_id: str, inputs: Inputs, *, resize: bool) -> pb.InterpretStreamRequest:
    """Request of `Client.interpret_stream` for one item."""
    return pb.InterpretStreamRequest(item_id=item_id, request=interpret_request(inputs, resize=resize))


def edit_request(
    targets: Inputs, edits: Edit | Sequence[Edit], *, output: Output, resize: bool, latents: bool = False
) -> pb.EditRequest:
    """Request for `Client.edit`."""
    edit_list = edits if isinstance(edits, Sequence) else [edits]
    return pb.EditRequest(
        targets=_inputs(targets, "targets"),
        edits=[_edit(edit, f"edits[{index}]") for index, edit in enumerate(edit_list)],
        format=_format(output),
        resize=resize,
        return_latents=latents,
    )


def edit_stream_request(item_id: str, targets: Inputs, *, edits: pb.EditRequest) -> pb.EditStreamRequest:
    """Request of `Client.edit_stream` for one item: `edits`, which has no targets, with those of the item."""
    request = pb.EditStreamRequest(item_id=item_id, request=edits)
    request.request.targets.extend(_inputs(targets, "targets"))
    return request


def sample_request(
    count: int,
    *,
    seed: int,
    temperature: float,
    fixed: Fixed,
    output: Output,
    resize: bool,
    truncation: float | None = None,
    latents: bool = False,
) -> pb.SampleRequest:
    """Request for `Client.sample`."""
    return pb.SampleRequest(
        count=_whole(count, "count", bits=32),
        seed=_whole(seed, "seed", bits=64),
        temperature=temperature,
        fixed=[_fixed(factor, value) for factor, value in fixed.items()],
        format=_format(output),
        resize=resize,
        truncation=truncation,
        return_latents=latents,
    )


def traverse_request(
    start: Input, path: Walk, frames: int, *, output: Output, resize: bool, latents: bool = False
) -> pb.TraverseRequest:
    """Request for `Client.traverse`."""
    request = pb.TraverseRequest(
        start=_input(start, "start"),
        frames=_whole(frames, "frames", bits=32),
        format=_format(output),
        resize=resize,
        return_latents=latents,
    )
    match path:
        case Interpolation(destination, factors):
            there = _input(destination, "path.destination")
            request.interpolation.CopyFrom(pb.Interpolation(destination=there, factors=_names(factors, "path.factors")))
        case LinearWalk(factor, direction, distance):
            towards = _numbers(direction, "path.direction")
            request.linear.CopyFrom(pb.LinearWalk(factor=factor, direction=towards, distance=distance))
        case RandomWalk(factors, seed, step, temperature):
            seed = _whole(seed, "path.seed", bits=64)
            names = _names(factors, "path.factors")
            request.random.CopyFrom(pb.RandomWalk(factors=names, seed=seed, step=step, temperature=temperature))
        case _:
            raise ValueError(
                f"path: expected an Interpolation, LinearWalk or RandomWalk, got {type(path).__name__}; give one"
            )
    return request


def respond_request(
    inputs: Inputs, *, factors: Sequence[str], draws: int, seed: int, temperature: float, resize: bool
) -> pb.RespondRequest:
    """Request for `Client.respond`."""
    return pb.RespondRequest(
        inputs=_inputs(inputs, "inputs"),
        factors=_names(factors, "factors"),
        draws=_whole(draws, "draws", bits=32),
        seed=_whole(seed, "seed", bits=64),
        temperature=temperature,
        resize=resize,
    )


def _inputs(inputs: Inputs, field: str) -> list[pb.Input]:
    items = inputs if isinstance(inputs, Sequence) and not isinstance(inputs, Input) else [inputs]
    return [_input(value, f"{field}[{index}]") for index, value in enumerate(items)]


def _input(value: object, field: str) -> pb.Input:
    match value:
        case str() | Path():
            return pb.Input(encoded_image=Path(value).read_bytes())
        case bytes():
            return pb.Input(encoded_image=value)
        case Image.Image():
            return pb.Input(encoded_image=_png(value, field))
        case RawImage():
            return pb.Input(image=_tensor(value.array, f"{field}.image"))
        case Latent():
            return pb.Input(latent=_tensor(value.array, f"{field}.latent"))
        case Factors():
            return pb.Input(factors=_tensor(value.array, f"{field}.factors"))
        case _:
            raise ValueError(
                f"{field}: expected a path, bytes, a Pillow image, RawImage, Latent or Factors, "
                f"got {type(value).__name__}; wrap an array to say what it holds, make a list of several"
            )


def _png(image: Image.Image, field: str) -> bytes:
    if image.mode not in _PNG_MODES:
        raise ValueError(
            f"{field}: expected a picture of mode {', '.join(_PNG_MODES)}, got {image.mode}; "
            "convert it first: image.convert('RGB')"
        )
    file = io.BytesIO()
    # Pillow leaves EXIF out of the file, with the rotation that the service would apply.
    upright(image).save(file, format="PNG")
    return file.getvalue()


def _tensor(array: ArrayLike, field: str) -> pb.Tensor:
    values = _array(array, "<f4", field, "an array of numbers")
    return pb.Tensor(shape=values.shape, data=values.tobytes())


def _edit(edit: Edit, field: str) -> pb.EditOperation:
    match edit:
        case Replace():
            source = _input(edit.source, f"{field}.replace.source")
            return pb.EditOperation(factor=edit.factor, replace=pb.Replace(source=source, strength=edit.strength))
        case SetValue():
            values = _numbers(edit.values, f"{field}.set.values")
            return pb.EditOperation(factor=edit.factor, set=pb.SetValue(values=values))
        case Resample():
            seed = _whole(edit.seed, f"{field}.resample.seed", bits=64)
            return pb.EditOperation(factor=edit.factor, resample=pb.Resample(seed=seed, temperature=edit.temperature))
        case Shift():
            shift = pb.Shift(direction=_numbers(edit.direction, f"{field}.shift.direction"), distance=edit.distance)
            return pb.EditOperation(factor=edit.factor, shift=shift)
        case _:
            raise ValueError(
                f"{field}: expected a Replace, SetValue, Resample or Shift, got {type(edit).__name__}; give one"
            )


def _fixed(factor: str, value: Input | Values) -> pb.FixedFactor:
    if isinstance(value, Input):
        return pb.FixedFactor(factor=factor, source=_input(value, f"fixed[{factor}]"))
    return pb.FixedFactor(factor=factor, set=pb.SetValue(values=_numbers(value, f"fixed[{factor}]")))


def _numbers(values: ArrayLike, field: str) -> list[float]:
    found: list[float] = _array(values, "<f8", field, "numbers, one a dimension of the factor").ravel().tolist()
    return found


def _array(values: ArrayLike, dtype: DTypeLike, field: str, expected: str) -> NDArray[Any]:
    """`values` as numbers; text and None, of which NumPy would make numbers too, are none."""
    try:
        found = np.asarray(values)
        if found.dtype.kind not in "biuf":
            raise ValueError(f"NumPy makes {found.dtype} of it")
        return found.astype(dtype, copy=False)
    except (TypeError, ValueError, RuntimeError) as error:  # the last of a tensor that needs gradients
        raise ValueError(f"{field}: expected {expected}, got {type(values).__name__}: {error}") from error


def _format(output: Output) -> str:
    if output not in get_args(Output):
        raise ValueError(f"output: expected one of {', '.join(get_args(Output))}, got {output!r}; choose one of them")
    return f"IMAGE_FORMAT_{output.upper()}"


def _names(factors: Sequence[str], field: str) -> list[str]:
    several = isinstance(factors, Sequence) and not isinstance(factors, str)
    if not several or not all(isinstance(name, str) for name in factors):
        raise ValueError(f"{field}: expected a sequence of names, got {factors!r}; write ['digit'] for one")
    return list(factors)


def _whole(value: int, field: str, *, bits: int) -> int:
    if not isinstance(value, Integral) or not 0 <= value < 2**bits:
        raise ValueError(f"{field}: expected a whole number in [0, 2^{bits}), got {value}; choose another")
    return value
