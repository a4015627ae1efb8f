"""The command line of `iin`: its commands, options and their values."""

import argparse
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from iin_client.inputs import LinearWalk, Replace, Resample, SetValue, Shift

__all__ = ["Picture", "build_parser"]

_DEFAULT_ADDRESS = "localhost:9000"


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
    operations = command.add_argument_group("operations (at least one, each as often as needed)")
    # One destination for all of them keeps the order of the command line.
    operations.add_argument(
        "--replace",
        dest="edits",
        action="append",
        type=_replace,
        metavar="FACTOR=SOURCE",
        help="take the factor over from the picture SOURCE",
    )
    operations.add_argument(
        "--set",
        dest="edits",
        action="append",
        type=_set_value,
        metavar="FACTOR=V1,V2,...",
        help="give the factor these values, in standard deviations, one a dimension",
    )
    operations.add_argument(
        "--resample",
        dest="edits",
        action="append",
        type=_resample,
        metavar="FACTOR=SEED",
        help="draw the factor from the prior; a seed repeats its draw",
    )
    operations.add_argument(
        "--shift",
        dest="edits",
        action="append",
        type=_shift,
        metavar="FACTOR=DISTANCE:V1,V2,...",
        help="move the factor DISTANCE standard deviations along the direction V1,V2,...",
    )
    command.add_argument(
        "--strength", type=float, metavar="S", help="how far every --replace goes, from 0 (no change) to 1 (default)"
    )
    _add_output(command, "PNG file to write; several targets make one grid, enlarged")
    _add_resize(command)


def _add_sample(command: argparse.ArgumentParser) -> None:
    command.add_argument("-n", "--count", type=int, default=64, metavar="N", help="how many (default 64)")
    command.add_argument("--seed", type=int, default=0, help="repeats the same pictures (default 0)")
    command.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="standard deviation of what is drawn; below 1 is more typical (default 1)",
    )
    command.add_argument(
        "--truncation",
        type=float,
        metavar="T",
        help="draw every value beyond T, at least 0.1, again; more typical pictures (default: none)",
    )
    command.add_argument(
        "--fix",
        dest="fixed",
        action="append",
        default=[],
        type=_fix,
        metavar="FACTOR=IMAGE",
        help="take the factor from this picture instead of drawing it; once a factor",
    )
    _add_output(command, "PNG file to write")
    _add_resize(command)


def _add_traverse(command: argparse.ArgumentParser) -> None:
    command.add_argument("start", type=_picture, metavar="START", help="picture where the path starts")
    paths = command.add_argument_group("path (exactly one)").add_mutually_exclusive_group(required=True)
    paths.add_argument("--to", type=_picture, metavar="IMAGE", help="in a straight line to this picture")
    paths.add_argument(
        "--line",
        type=_line,
        metavar="FACTOR=DISTANCE:V1,V2,...",
        help="DISTANCE standard deviations along the direction V1,V2,... of a factor",
    )
    paths.add_argument(
        "--random",
        type=int,
        metavar="SEED",
        help="at random, keeping to the prior (Ornstein-Uhlenbeck); a seed repeats it",
    )
    command.add_argument(
        "--factor",
        dest="factors",
        action="append",
        default=[],
        metavar="FACTOR",
        help="move this factor only, with --to and --random; as often as needed (default: all)",
    )
    command.add_argument("--step", type=float, metavar="S", help="with --random, how far a frame goes (default 0.1)")
    command.add_argument("-n", "--frames", type=int, default=16, metavar="N", help="how many frames (default 16)")
    _add_output(command, "file to write: .png one grid, row by row, .gif or .webp a film")
    _add_resize(command)


def _add_respond(command: argparse.ArgumentParser) -> None:
    _add_pictures(command, "IMAGE", "picture to analyse (PNG, JPEG or WebP)")
    command.add_argument(
        "--draws", type=int, default=100, metavar="N", help="how often to draw each factor of a picture (default 100)"
    )
    command.add_argument("--seed", type=int, default=0, help="repeats the same draws (default 0)")
    _add_json(command)
    _add_resize(command)


def _add_gallery(command: argparse.ArgumentParser) -> None:
    _add_pictures(command, "IMAGE", "picture to show, at least two; the first six are swapped")
    _add_output(command, "PNG file to write")
    _add_resize(command)


def _add_connection(command: argparse.ArgumentParser) -> None:
    connection = command.add_argument_group("connection")
    connection.add_argument(
        "--address",
        default=os.environ.get("IIN_ADDRESS", _DEFAULT_ADDRESS),
        metavar="HOST:PORT",
        help=f"of the service (default: IIN_ADDRESS or {_DEFAULT_ADDRESS})",
    )
    connection.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="deadline of a call (default 30)"
    )
    connection.add_argument("--application", metavar="NAME", help="which model, where several are served")
    connection.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="holds the token that a gateway in front wants (default: the token in the variable IIN_TOKEN, if set); "
        "needs --tls",
    )
    connection.add_argument("--tls", action="store_true", help="encrypt; implied by the options below")
    connection.add_argument(
        "--root-certificates",
        type=Path,
        metavar="PEM",
        help="authorities to trust instead of the default ones",
    )
    connection.add_argument("--client-key", type=Path, metavar="PEM", help="own private key, for mutual TLS")
    connection.add_argument("--client-certificate", type=Path, metavar="PEM", help="own certificate, for mutual TLS")
    connection.add_argument(
        "--server-name", metavar="NAME", help="name in the service's certificate, where it is not HOST"
    )


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
        "picture's, \"its deviation\" the standard deviation of the class's number.",
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
    """The file at `path`; OSError, which is no wrong usage to argparse, where it is no picture."""
    try:
        data = Path(path).read_bytes()
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")):
            return Picture(path, data)
    except UnidentifiedImageError:
        raise OSError(f"{path}: expected a PNG, JPEG or WebP file, got something else") from None
    except Image.DecompressionBombError as error:
        raise OSError(f"{path}: {error}") from None
    except OSError as error:
        raise OSError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:  # Pillow's, of a part that is too large; to argparse it would be wrong usage
        raise OSError(f"cannot read {path}: {error}") from None


def _replace(text: str) -> Replace:
    factor, path = _assignment(text, "SOURCE")
    return Replace(factor, _picture(path).data)


def _set_value(text: str) -> SetValue:
    factor, values = _assignment(text, "V1,V2,...")
    return SetValue(factor, _numbers(values, text))


def _resample(text: str) -> Resample:
    factor, seed = _assignment(text, "SEED")
    if not seed.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, at least 0, as seed, got {seed}")
    return Resample(factor, seed=int(seed))


def _shift(text: str) -> Shift:
    factor, value = _assignment(text, "DISTANCE:V1,V2,...")
    distance, colon, direction = value.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text}: expected FACTOR=DISTANCE:V1,V2,..., got no direction")
    distances = _numbers(distance, text)
    if len(distances) != 1:
        raise argparse.ArgumentTypeError(f"{text}: expected one distance before the colon, got {distance}")
    return Shift(factor, direction=_numbers(direction, text), distance=distances[0])


def _line(text: str) -> LinearWalk:
    shift = _shift(text)
    return LinearWalk(shift.factor, shift.direction, shift.distance)


def _fix(text: str) -> tuple[str, Picture]:
    factor, path = _assignment(text, "IMAGE")
    return factor, _picture(path)


def _assignment(text: str, expected: str) -> tuple[str, str]:
    factor, equals, value = text.partition("=")
    if not (factor and equals and value):
        raise argparse.ArgumentTypeError(f"expected FACTOR={expected}, got {text}")
    return factor, value


def _numbers(values: str, text: str) -> Sequence[float]:
    try:
        return [float(value) for value in values.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected numbers between commas, got {values}") from None
