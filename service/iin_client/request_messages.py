"""Request messages from Python values; ValueError for what cannot be sent, OSError for unreadable files."""

import io
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

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
    "edits_request",
    "input_messages",
    "interpret_request",
    "respond_request",
    "sample_request",
    "traverse_request",
]

_FORMATS = {
    "png": pb.IMAGE_FORMAT_PNG,
    "jpeg": pb.IMAGE_FORMAT_JPEG,
    "webp": pb.IMAGE_FORMAT_WEBP,
    "raw": pb.IMAGE_FORMAT_RAW,
    "none": pb.IMAGE_FORMAT_NONE,
}
_PNG_MODES = ("L", "LA", "P", "RGB", "RGBA")


def interpret_request(inputs: Inputs, *, resize: bool) -> pb.InterpretRequest:
    """Request for `Client.interpret`."""
    return pb.InterpretRequest(inputs=input_messages(inputs, "inputs"), resize=resize)


def edit_request(
    targets: Inputs, edits: Edit | Sequence[Edit], *, output: Output, resize: bool, latents: bool = False
) -> pb.EditRequest:
    """Request for `Client.edit`."""
    request = edits_request(edits, output=output, resize=resize, latents=latents)
    request.targets.extend(input_messages(targets, "targets"))
    return request


def edits_request(edits: Edit | Sequence[Edit], *, output: Output, resize: bool, latents: bool) -> pb.EditRequest:
    """Request for `Client.edit` that has no targets yet."""
    edit_list = list(edits) if isinstance(edits, Sequence) and not isinstance(edits, str) else [edits]
    if not edit_list:
        raise ValueError("edits: expected at least one, got none; give a Replace, Shift, ...")
    return pb.EditRequest(
        edits=[_edit(edit, f"edits[{index}]") for index, edit in enumerate(edit_list)],
        format=_format(output),
        resize=resize,
        return_latents=latents,
    )


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
            walk = pb.RandomWalk(factors=names, seed=seed, step=step, temperature=temperature)
            request.random.CopyFrom(walk)
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
        inputs=input_messages(inputs, "inputs"),
        factors=_names(factors, "factors"),
        draws=_whole(draws, "draws", bits=32),
        seed=_whole(seed, "seed", bits=64),
        temperature=temperature,
        resize=resize,
    )


def input_messages(inputs: Inputs, field: str) -> list[pb.Input]:
    """Messages of one input or several, which stand in `field`."""
    items = inputs if isinstance(inputs, Sequence) and not isinstance(inputs, Input) else [inputs]
    found = [_input(value, f"{field}[{index}]") for index, value in enumerate(items)]
    if not found:
        raise ValueError(f"{field}: expected at least one, got none; give pictures, latents or factors")
    return found


def _input(value: object, field: str) -> pb.Input:
    match value:
        case str() | Path():
            return pb.Input(encoded_image=Path(value).read_bytes())
        case bytes():
            return pb.Input(encoded_image=value)
        case Image.Image():
            return pb.Input(encoded_image=_png(value, field))
        case RawImage():
            return pb.Input(image=_tensor(value.array, f"{field}.image", dimensions=(3, 4)))
        case Latent():
            return pb.Input(latent=_tensor(value.array, f"{field}.latent", dimensions=(1, 2, 3, 4)))
        case Factors():
            return pb.Input(factors=_tensor(value.array, f"{field}.factors", dimensions=(1, 2)))
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


def _tensor(array: ArrayLike, field: str, *, dimensions: tuple[int, ...]) -> pb.Tensor:
    values = _array(array, "<f4", field, "an array of numbers")
    if values.ndim not in dimensions or values.size == 0:
        expected = " or ".join(map(str, dimensions))
        raise ValueError(
            f"{field}: expected {expected} dimensions, none of length 0, got shape {values.shape}; "
            "leave the batch out for one item or put it first"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{field}: expected finite float32 numbers, got others; remove nan and infinity")
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


def _format(output: str) -> pb.ImageFormat:
    if output not in _FORMATS:
        raise ValueError(f"output: expected one of {', '.join(_FORMATS)}, got {output!r}; choose one of them")
    return _FORMATS[output]


def _names(factors: Sequence[str], field: str) -> list[str]:
    several = isinstance(factors, Sequence) and not isinstance(factors, str)
    if not several or not all(isinstance(name, str) for name in factors):
        raise ValueError(f"{field}: expected a sequence of names, got {factors!r}; write ['digit'] for one")
    return list(factors)


def _whole(value: int, field: str, *, bits: int) -> int:
    if not isinstance(value, Integral) or not 0 <= value < 2**bits:
        raise ValueError(f"{field}: expected a whole number in [0, 2^{bits}), got {value}; choose another")
    return value
