"""The `iin` command: a model's factors from the command line."""

import argparse
import dataclasses
import functools
import io
import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from iin_client.arguments import build_parser
from iin_client.channel import Tls
from iin_client.client import Client
from iin_client.errors import CallError
from iin_client.fitting import fitted, interpreted
from iin_client.gallery import draw_gallery
from iin_client.inputs import Edit, Interpolation, RandomWalk, Replace, Walk
from iin_client.model import Model
from iin_client.results import Edited, Interpretations
from iin_client.sheet import contact_sheet, scaled
from iin_client.tables import describe_interpretations, describe_model, describe_models, describe_responses

__all__ = ["main"]

_TELL_S = 2.0  # between two lines of progress
_FRAME_MS = 80  # of a film


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `iin` with `arguments` (those of the process if None) and returns its exit code.

    0: done; 1: a call failed; 2: wrong usage or an unreadable or unwritable file; 130: interrupted; 141: the reader
    of stdout or of the output closed it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # for file names that its encoding lacks
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # what is too large is shrunk or refused
    try:
        options = build_parser().parse_args(arguments)
        with _connect(options) as client:
            _COMMANDS[options.command](client, options)
        print(end="", flush=True)  # no error where the process has no stdout
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout when it ends
        return 141
    except (CallError, OSError, ValueError) as error:
        message = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            message = f"{error.filename}: {error.strerror}"
        print(f"iin: {message}", file=sys.stderr)
        return 1 if isinstance(error, CallError) else 2
    except KeyboardInterrupt:
        return 130
    return 0


def _connect(options: argparse.Namespace) -> Client:
    tls = Tls(
        root_certificates=options.root_certificates,
        client_key=options.client_key,
        client_certificate=options.client_certificate,
        server_name=options.server_name,
    )
    token = os.environ.get("IIN_TOKEN") or None
    if options.token_file:
        try:
            token = options.token_file.read_bytes().decode(errors="replace").strip()
        except OSError as error:
            raise OSError(f"--token-file: cannot read {options.token_file}: {error.strerror}") from None
    return Client(
        options.address,
        timeout=options.timeout,
        application=options.application,
        tls=tls if options.tls or tls != Tls() else None,
        token=token,
    )


def _describe(client: Client, options: argparse.Namespace) -> None:
    model = client.get_model()
    print(json.dumps(dataclasses.asdict(model), indent=2) if options.json else describe_model(model))


def _interpret(client: Client, options: argparse.Namespace) -> None:
    model = client.get_model()
    items, timings = [], []
    for names, found in interpreted(client, model, options.pictures, resize=options.resize):
        if options.json:
            items += _json_items(names, model, found)
            timings.append(dataclasses.asdict(found.timing))
        else:
            print(describe_interpretations(names, model, found))
    if options.json:
        print(json.dumps({"items": items, "timings": timings}, indent=2))


def _json_items(names: Sequence[str], model: Model, found: Interpretations) -> list[dict[str, Any]]:
    split = model.split(found.factors)
    return [
        {
            "image": name,
            "log_likelihood": float(found.log_likelihoods[index]),
            "log_likelihood_quantile": float(found.log_likelihood_quantiles[index]),
            "latent": found.latents[index].tolist(),
            "factors": {factor: values[index].tolist() for factor, values in split.items()},
            "probabilities": None if found.probabilities is None else found.probabilities[index].tolist(),
        }
        for index, name in enumerate(names)
    ]


def _drawing_model(client: Client, options: argparse.Namespace) -> Model:
    """The model; ValueError where it has no decoder."""
    model = client.get_model()
    if all(graph.role != "decoder" for graph in model.graphs):
        raise ValueError(
            f"{options.command}: expected a model with a decoder, which draws pictures, got {model.name} "
            f"{model.version} without one; iin interpret shows its factors"
        )
    return model


def _edit(client: Client, options: argparse.Namespace) -> Sequence[Image.Image]:
    edits: list[Edit] = options.edits
    if not edits:
        raise ValueError("edit: expected at least one of --replace, --set, --resample, --shift, got none")
    targets = [picture.data for picture in options.pictures]
    sources = [edit.source for edit in edits if isinstance(edit, Replace) and isinstance(edit.source, bytes)]
    if options.strength is not None and not sources:
        raise ValueError("--strength: expected a --replace for it to apply to, got none; leave it out")
    strength = Replace.strength if options.strength is None else options.strength
    files = iter(fitted([*targets, *sources], _drawing_model(client, options), resize=options.resize))
    targets = [next(files) for _ in targets]
    edits = [
        dataclasses.replace(edit, source=next(files), strength=strength) if isinstance(edit, Replace) else edit
        for edit in edits
    ]
    pictures = client.edit(targets, edits, resize=options.resize).images.pictures
    return pictures if len(pictures) == 1 else [contact_sheet(pictures)]


def _sample(client: Client, options: argparse.Namespace) -> Sequence[Image.Image]:
    factors = [factor for factor, _ in options.fixed]
    if len(set(factors)) < len(factors):
        raise ValueError(f"--fix: expected every factor at most once, got {', '.join(factors)}; drop one")
    sources = [picture.data for _, picture in options.fixed]
    files = fitted(sources, _drawing_model(client, options), resize=options.resize)
    chunks = client.sample(
        options.count,
        seed=options.seed,
        temperature=options.temperature,
        fixed=dict(zip(factors, files, strict=True)),
        resize=options.resize,
        truncation=options.truncation,
    )
    return [contact_sheet(_pictures(chunks, options.count))]


def _pictures(chunks: Iterable[Edited], expected: int) -> list[Image.Image]:
    """All pictures of a stream, with lines of progress where it takes long."""
    found: list[Image.Image] = []
    told = time.monotonic()
    for chunk in chunks:
        found += chunk.images.pictures
        if len(found) < expected and time.monotonic() - told >= _TELL_S:
            told = time.monotonic()
            print(f"iin: {len(found)} of {expected} pictures", file=sys.stderr)
    return found


def _traverse(client: Client, options: argparse.Namespace) -> Sequence[Image.Image]:
    if options.factors and options.line is not None:
        raise ValueError("--factor: expected --to or --random beside it, got --line, which names its own; drop one")
    if options.step is not None and options.random is None:
        raise ValueError("--step: expected --random beside it, got none; leave it out")
    ends = [picture.data for picture in (options.start, options.to) if picture is not None]
    start, *destination = fitted(ends, _drawing_model(client, options), resize=options.resize)
    path: Walk
    if destination:
        path = Interpolation(destination[0], options.factors)
    elif options.line is not None:
        path = options.line
    else:
        step = RandomWalk.step if options.step is None else options.step
        path = RandomWalk(options.factors, seed=options.random, step=step)
    frames = _pictures(client.traverse(start, path, options.frames, resize=options.resize), options.frames)
    return [contact_sheet(frames)] if _format(options.output) == "PNG" else [scaled(frame) for frame in frames]


def _respond(client: Client, options: argparse.Namespace) -> None:
    names = [picture.path for picture in options.pictures]
    files: Sequence[bytes] = [picture.data for picture in options.pictures]
    if options.resize:
        files = fitted(files, client.get_model(), resize=True)
    found = client.respond(files, draws=options.draws, seed=options.seed, resize=options.resize)
    if not options.json:
        print(describe_responses(names, found))
        return
    items = [
        {
            "image": name,
            "probabilities": found.probabilities[index].tolist(),
            "factors": {
                factor: {field: values[index].tolist() for field, values in vars(response).items()}
                for factor, response in found.factors.items()
            },
        }
        for index, name in enumerate(names)
    ]
    print(json.dumps({"items": items, "timing": dataclasses.asdict(found.timing)}, indent=2))


def _models(client: Client, options: argparse.Namespace) -> None:
    models = client.list_models()
    if options.json:
        print(json.dumps([dataclasses.asdict(model) for model in models], indent=2))
    else:
        print(describe_models(models) if models else "no model is served")


def _gallery(client: Client, options: argparse.Namespace) -> Sequence[Image.Image]:
    if len(options.pictures) < 2:
        raise ValueError("gallery: expected at least 2 pictures, got 1; give another one to swap factors with")
    return [draw_gallery(client, _drawing_model(client, options), options.pictures, resize=options.resize)]


_Draw: TypeAlias = Callable[[Client, argparse.Namespace], Sequence[Image.Image]]
"""Gives a picture, or the frames of a film."""


def _draw(draw: _Draw, client: Client, options: argparse.Namespace, endings: Sequence[str] = (".png",)) -> None:
    """Runs a command that writes a picture; the file is written whole or stays as it was."""
    output: Path = options.output
    _check_output(output, endings)
    first, *others = draw(client, options)
    file = io.BytesIO()
    first.save(file, _format(output), save_all=bool(others), append_images=others, duration=_FRAME_MS, loop=0)
    try:
        if _is_pipe_or_device(output):
            output.write_bytes(file.getvalue())
        else:
            _replace(_target(output), file.getvalue())
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(f"--output: cannot write {output}: {error.strerror or error}") from None
    print(f"{output}: {first.width} x {first.height} pixels")


def _format(output: Path) -> str:
    return output.suffix[1:].upper()


def _check_output(output: Path, endings: Sequence[str]) -> None:
    """Refuses what could not be written before the service does any work for it."""
    if output.suffix.lower() not in endings:
        raise ValueError(f"--output: expected a name that ends in {' or '.join(endings)}, got {output}; choose one")
    if output.is_dir():
        raise ValueError(f"--output: expected a file, got the folder {output}; name another")
    folder = _target(output).parent
    written = [output] if _is_pipe_or_device(output) else [folder, output]
    if not (folder.is_dir() and all(os.access(one, os.W_OK) for one in written if one.exists())):
        raise ValueError(
            f"--output: expected a file in a folder that is there and can be written to, got {output}; "
            f"make {folder}, or name another"
        )


def _is_pipe_or_device(output: Path) -> bool:
    """Whether the output is written to in place: a file must not replace it."""
    return output.exists() and not output.is_file()


def _target(output: Path) -> Path:
    """The file that a link leads to; `Path.resolve` would raise at links in a circle."""
    return Path(os.path.realpath(output))


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".iin-{os.getpid()}.partial")
    try:
        partial.touch()
        if path.exists():
            shutil.copymode(path, partial)
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


_COMMANDS: dict[str, Callable[[Client, argparse.Namespace], None]] = {
    "describe": _describe,
    "interpret": _interpret,
    "respond": _respond,
    "models": _models,
    "edit": functools.partial(_draw, _edit),
    "sample": functools.partial(_draw, _sample),
    "traverse": functools.partial(_draw, _traverse, endings=(".png", ".gif", ".webp")),
    "gallery": functools.partial(_draw, _gallery),
}
