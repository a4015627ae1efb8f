"""Strict conversion of JSON values into the manifest's dataclasses; `dataclasses.asdict` is the way back."""

import dataclasses
import sys
import types
import typing
from typing import Any

from iin_bundle.errors import BundleError

__all__ = ["from_json"]


def from_json(kind: Any, value: object, where: str) -> Any:
    """Build a `kind` (dataclass, tuple, dict, union or scalar type) from a JSON value.

    Raises:
        BundleError: naming the field (`where` and the path below it), what was expected and given.

    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass_from_json(kind, value, where)
    if origin in (types.UnionType, typing.Union):
        for option in arguments:
            if _fits(option, value):
                return from_json(option, value, where)
        raise _unexpected(where, " or ".join(_name(option) for option in arguments), value)
    if origin is tuple:
        if not isinstance(value, list):
            raise _unexpected(where, "a list", value)
        return tuple(from_json(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise _unexpected(where, "an object", value)
        return {key: from_json(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if not _fits(kind, value):
        raise _unexpected(where, _name(kind), value)
    return float(typing.cast(float, value)) if kind is float else value


def _dataclass_from_json(kind: Any, value: object, where: str) -> Any:
    if not isinstance(value, dict):
        raise _unexpected(where, "an object", value)
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise BundleError(f"{where}: expected fields {', '.join(fields)}, got unknown {', '.join(unknown)}")
    given = {}
    for name, description in fields.items():
        if name in value:
            given[name] = from_json(hints[name], value[name], f"{where}.{name}")
        elif description.default is dataclasses.MISSING and description.default_factory is dataclasses.MISSING:
            raise BundleError(f"{where}.{name}: expected a value, got none; export the bundle again")
    return kind(**given)


def _fits(kind: Any, value: object) -> bool:
    if kind is types.NoneType:
        return value is None
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(kind, type) and isinstance(value, kind)


def _name(kind: Any) -> str:
    names = {str: "text", int: "an integer", float: "a finite number", bool: "true or false"}
    return names.get(kind, "null" if kind is types.NoneType else str(kind))


def _unexpected(where: str, expected: str, value: object) -> BundleError:
    shown = repr(value)
    return BundleError(f"{where}: expected {expected}, got {shown if len(shown) < 60 else shown[:57] + '...'}")
