"""The command line of `iin`: its commands, options and their values."""

import argparse
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from iin_client.inputs import Edit, LinearWalk, Replace, Resample, SetValue, Shift

__all__ = ["Picture", "build_parser"]

_DEFAULT_ADDRESS = "localhost:9000"
_LINE = "FACTOR=DISTANCE:V1,V2,..."

Value = TypeVar("Value")


@dataclass(frozen=True)
class Picture:
    """An image file that was read."""

    path: str
    data: bytes


def build_parser() -> argparse.ArgumentParser:
    """Parser whose namespace holds `command`, the options of that command and those of the connection."""
    parser = argparse.ArgumentParser(
        prog="iin",
        description="Ask a served model for the factors of pictures (digit, colour, ...), edit them, draw pictures.",
        epilog="Start with: iin describe. Every command has --help with an example.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, more, example, add_options) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary} {more}", epilog=f"example: {example}")
        add_options(command)
        _add_connection(command)
    return parser


def _add_interpret(command: argparse.ArgumentParser) -> None:
    _add_pictures(command, "IMAGE", "picture to interpret (PNG, JPEG or WebP)")
    _add_json(command)
    _add_resize(command)


def _add_edit(command: argparse.ArgumentParser) -> None:
    _add_pictures(command, "TARGET", "picture to edit (PNG, JPEG or WebP)")
    operations = command.add_argument_group(
        "operations (at least one, each as often as needed)",
        "Values, one per dimension, and DISTANCE are in standard deviations of the prior.",
    )

    def add(option: str, form: str, read: Callable[[str, str], Edit], text: str) -> None:
        kind = _assigned(form, read)  # one destination for all of them keeps the order of the command line
        operations.add_argument(option, dest="edits", action="append", type=kind, metavar=form, help=text)

    add("--replace", "FACTOR=SOURCE", lambda f, path: Replace(f, _picture(path).data), "take FACTOR from this picture")
    add("--set", "FACTOR=V1,V2,...", lambda f, text: SetValue(f, _numbers(text)), "set FACTOR to these values")
    add("--resample", "FACTOR=SEED", lambda f, seed: Resample(f, _seed(seed)), "draw FACTOR anew; SEED repeats a draw")
    add("--shift", _LINE, lambda f, text: Shift(f, *_line(text)), "move FACTOR by DISTANCE along this direction")
    text = "how far every --replace goes, from 0 (no change) to 1 (default)"
    command.add_argument("--strength", type=float, metavar="S", help=text)
    _add_output(command, "PNG file to write; several targets make one grid, enlarged")
    _add_resize(command)


def _add_sample(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("-n", "--count", type=int, default=64, metavar="N", help="how many (default 64)")
    add("--seed", type=int, default=0, help="the same seed gives the same pictures (default 0)")
    text = "standard deviation of the drawn factors; below 1 gives more typical pictures (default 1)"
    add("--temperature", type=float, default=1.0, metavar="T", help=text)
    text = "draw values beyond T (at least 0.1) again, for more typical pictures (default: none)"
    add("--truncation", type=float, metavar="T", help=text)
    form, text = "FACTOR=IMAGE", "take FACTOR from this picture instead of drawing it; each factor once"
    fixed = _assigned(form, lambda factor, path: (factor, _picture(path)))
    add("--fix", dest="fixed", action="append", default=[], type=fixed, metavar=form, help=text)
    _add_output(command, "PNG file to write")
    _add_resize(command)


def _add_traverse(command: argparse.ArgumentParser) -> None:
    command.add_argument("start", type=_picture, metavar="START", help="picture where the path starts")
    paths = command.add_argument_group("path (exactly one)").add_mutually_exclusive_group(required=True)
    paths.add_argument("--to", type=_picture, metavar="IMAGE", help="in a straight line to this picture")
    line = _assigned(_LINE, lambda factor, text: LinearWalk(factor, *_line(text)))
    text = "DISTANCE standard deviations along the direction V1,V2,... of a factor"
    paths.add_argument("--line", type=line, metavar=_LINE, help=text)
    text = "at random, keeping to the prior (Ornstein-Uhlenbeck); the same seed gives the same path"
    paths.add_argument("--random", type=int, metavar="SEED", help=text)
    add = command.add_argument
    text = "move this factor only, with --to and --random; as often as needed (default: all)"
    add("--factor", dest="factors", action="append", default=[], metavar="FACTOR", help=text)
    text = "with --random, how far each frame moves (default 0.1)"
    add("--step", type=float, metavar="S", help=text)
    add("-n", "--frames", type=int, default=16, metavar="N", help="how many frames (default 16)")
    _add_output(command, "file to write: .png one grid, row by row, .gif or .webp a film")
    _add_resize(command)


def _add_respond(command: argparse.ArgumentParser) -> None:
    _add_pictures(command, "IMAGE", "picture to analyse (PNG, JPEG or WebP)")
    command.add_argument(
        "--draws", type=int, default=100, metavar="N", help="how often to draw each factor of a picture (default 100)"
    )
    command.add_argument("--seed", type=int, default=0, help="the same seed gives the same draws (default 0)")
    _add_json(command)
    _add_resize(command)


def _add_gallery(command: argparse.ArgumentParser) -> None:
    _add_pictures(command, "IMAGE", "picture to show, at least two; the first six are swapped")
    _add_output(command, "PNG file to write")
    _add_resize(command)


def _add_connection(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("connection").add_argument
    address = os.environ.get("IIN_ADDRESS") or _DEFAULT_ADDRESS
    text = f"address of the service; with TLS the port is 443 if left out (default: IIN_ADDRESS or {_DEFAULT_ADDRESS})"
    add("--address", default=address, metavar="HOST:PORT", help=text)
    add("--timeout", type=float, default=30.0, metavar="SECONDS", help="deadline of a call (default 30)")
    add("--application", metavar="NAME", help="which model, where several are served")
    text = "file with the token for a gateway in front (default: the token in IIN_TOKEN, if set); needs --tls"
    add("--token-file", type=Path, metavar="FILE", help=text)
    add("--tls", action="store_true", help="encrypt; implied by the options below")
    add("--root-certificates", type=Path, metavar="PEM", help="authorities to trust instead of the default ones")
    add("--client-key", type=Path, metavar="PEM", help="own private key, for mutual TLS")
    add("--client-certificate", type=Path, metavar="PEM", help="own certificate, for mutual TLS")
    add("--server-name", metavar="NAME", help="name in the service's certificate, if it is not HOST")


def _add_pictures(command: argparse.ArgumentParser, metavar: str, text: str) -> None:
    command.add_argument("pictures", nargs="+", type=_picture, metavar=metavar, help=text)


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print everything as JSON")


def _add_resize(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--resize",
        action="store_true",
        help="resize pictures to the model's size, cropped around the centre, instead of refusing them",
    )


def _add_output(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help=text)


_COMMANDS: dict[str, tuple[str, str, str, Callable[[argparse.ArgumentParser], None]]] = {
    "describe": (
        "Show the model, its factors and its figures.",
        "A figure's ceiling is the best that the encoder and decoder allow, its floor what chance gives. "
        "The limits are what one call may ask for.",
        "iin describe --address models.example:9000",
        _add_json,
    ),
    "interpret": (
        "Show the factors of pictures and how likely they are.",
        "The quantile is the share of held-out pictures that are less likely: near 0 means unusual. Every "
        "factor has its |norm| and its values, in standard deviations of the prior.",
        "iin interpret seven.png three.png",
        _add_interpret,
    ),
    "edit": (
        "Change factors of pictures.",
        "The operations apply in the order in which they are written. iin describe names the factors.",
        "iin edit a.png --replace digit=b.png --resample residual=1 -o out.png",
        _add_edit,
    ),
    "sample": (
        "Draw new pictures from the prior.",
        "They make one grid, enlarged.",
        "iin sample -n 64 --seed 7 --fix colour=seven.png -o samples.png",
        _add_sample,
    ),
    "traverse": (
        "Follow a path through the factors of a picture.",
        "The first frame is the picture as the model reconstructs it.",
        "iin traverse a.png --to b.png --factor digit -n 24 -o film.gif",
        _add_traverse,
    ),
    "respond": (
        "Show what the classes of a classifier do when a factor is drawn anew.",
        'For a model with a head. "class changes" is the share of the draws that give another class than the '
        "picture's, \"class deviation\" the standard deviation of the class's number.",
        "iin respond seven.png --draws 200",
        _add_respond,
    ),
    "models": (
        "List the models that are served side by side.",
        "Any of them can be named with --application.",
        "iin models --address models.example:9000",
        _add_json,
    ),
    "gallery": (
        "Draw one page that shows what the factors mean.",
        "It holds reconstructions of the pictures, swaps of every factor between them, interpolations from "
        "the first to the last, and samples from the prior.",
        "iin gallery pictures/*.png -o gallery.png",
        _add_gallery,
    ),
}


def _picture(path: str) -> Picture:
    """The picture in a file; OSError, which argparse lets through, where it is none."""
    data = Path(path).read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")):
            return Picture(path, data)
    except UnidentifiedImageError:
        raise OSError(f"{path}: expected a PNG, JPEG or WebP file, got something else") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:  # of parts that are cut or too large
        raise OSError(f"{path}: {error}") from None


def _assigned(form: str, read: Callable[[str, str], Value]) -> Callable[[str], Value]:
    """Reader of an option of the form `FACTOR=...`; a ValueError of `read` is wrong usage."""

    def value_of(text: str) -> Value:
        factor, _, value = text.partition("=")
        try:
            if factor and value:
                return read(factor, value)
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"expected {form}, got {text}")

    return value_of


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise ValueError
    return int(text)


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def _line(text: str) -> tuple[list[float], float]:
    """Direction and distance."""
    distance, _, direction = text.partition(":")
    return _numbers(direction), float(distance)
