"""The command `iin-train`."""

import errno
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, cast

import tyro
from rich.console import Console
from rich.text import Text

from iin_training.model_card import quality_table, score_table
from iin_training.own_model import AnyRecipe
from iin_training.pipeline import run_recipe, score_recipe
from iin_training.processes import joined, leads
from iin_training.recipes import RECIPES, find_recipe, told_of
from iin_training.report import show_report
from iin_training.sketch_sheet import show_sketches

__all__ = ["main"]

USAGE = """usage: iin-train run RECIPE [--run-dir DIR] [OPTIONS]
       iin-train scores RECIPE [--run-dir DIR] [OPTIONS]
       iin-train sketches RECIPE [--run-dir DIR] [OPTIONS]
       iin-train report RUN_DIR | BUNDLE

run       train an interpretation network, evaluate it on held-out data and export a bundle to serve
scores    how much the model knows of each concept, and the factor sizes that follow; T is not trained. A recipe of ours
          first trains the networks that come before T, and run reuses them
sketches  for a recipe with Sketches: a picture of what is re-drawn in the style of each sketch
report    how far a run got, how long its stages took, its factor sizes and figures; all of it, with pictures and new
          curves, goes to RUN_DIR/report.html. For a bundle: its figures, and BUNDLE.html beside it

recipes:
{recipes}
  FILE.py:FUNCTION         your own: a function without arguments that returns an OwnModel (docs/OWN_MODEL.md)

Every setting of a recipe is an option; see them all with

  iin-train run RECIPE --help

examples:
  iin-train run digits
  iin-train run digits --transform.optimiser.steps 2000 --run-dir build/longer
  iin-train run cmnist --data.idx-dir path/to/mnist
  iin-train scores path/to/mine.py:my_recipe
  iin-train report build/digits

An interrupted run goes on from its last checkpoint when it is started again. A GPU is used where there is one; put
CUDA_VISIBLE_DEVICES= before the command to train on the CPU. Several processes share every batch:

  torchrun --nproc-per-node 2 -m iin_training run RECIPE
"""
COMMANDS = ("run", "scores", "sketches", "report")
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)  # may not be written, whatever the name
R = TypeVar("R")


def usage() -> str:
    """The help text, with the first line of every recipe's docstring."""
    lines = [f"  {name:24} {(recipe.__doc__ or '').splitlines()[0]}" for name, recipe in RECIPES.items()]
    return USAGE.format(recipes="\n".join(lines))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 1 failed, 2 wrong usage."""
    given = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(given[:2]) or not given:
        _console().print(usage(), highlight=False)  # ends quietly where a pager or head has seen enough
        return 0
    if given[0] not in COMMANDS or len(given) < 2:
        print(usage(), file=sys.stderr)
        if given[0] not in COMMANDS:
            _fail(f"COMMAND: expected one of {', '.join(COMMANDS)}, got {given[0]!r}")
        return 2
    if given[0] == "report":
        return _report(given[1:])
    try:
        recipe = find_recipe(given[1])
    except ValueError as error:
        _fail(f"RECIPE: {error}")
        return 2
    try:
        with joined():
            return _run(given[0], given[1], recipe, given[2:])
    except ValueError as error:  # of `joined`; a run tells of its own
        _fail(str(error))
        return 2


@dataclass(frozen=True, kw_only=True)
class Command(Generic[R]):
    """Options of `iin-train run RECIPE`."""

    run_dir: Path
    """Where checkpoints, metrics and the bundle are kept."""
    recipe: Annotated[R, tyro.conf.arg(name="")]


def _run(action: str, name: str, recipe: Callable[[], AnyRecipe], arguments: list[str]) -> int:
    console = _console(quiet=not leads())
    run_dir = Path("build")
    try:
        default = recipe()
        run_dir = Path("build") / default.name
        command: Command[AnyRecipe] = tyro.cli(
            cast(Any, Command)[type(default)],  # which recipe it is, is known only now
            prog=f"iin-train {action} {name}",
            description=recipe.__doc__ or default.name,
            default=Command(run_dir=run_dir, recipe=default),
            args=arguments,
        )
        run_dir = command.run_dir
        if action == "scores":
            scores = score_recipe(command.recipe, run_dir, console)
            console.print(score_table(scores.reference, scores.paper, scores.size), soft_wrap=False)
            return 0
        if action == "sketches":
            show_sketches(command.recipe, run_dir, console)
            return 0
        bundle = run_recipe(command.recipe, run_dir, console)
    except (ValueError, RuntimeError, FloatingPointError, OSError) as error:  # our own errors are of these kinds
        _fail(f"{_explained(error, run_dir)}{_lines(error, name)}")
        return 1
    except Exception as error:
        if name in RECIPES:
            raise  # our own mistake
        _fail(told_of(error, name))
        return 1
    except KeyboardInterrupt:
        if any(run_dir.glob("checkpoints/*/checkpoint.json")):
            told = f"interrupted; run the same command again to go on from the last checkpoint in {run_dir}"
        else:
            told = f"interrupted before the first checkpoint in {run_dir}; run the same command again"
        console.print(told)
        return 130
    console.print(quality_table(bundle.manifest), soft_wrap=False)
    console.print(f"meanings: {bundle.directory / 'MODEL_CARD.md'}\nserve it with: iin-serve {bundle.directory}")
    return 0


def _report(arguments: list[str]) -> int:
    if len(arguments) > 1:
        _fail(f"RUN_DIR: expected nothing after it, got {' '.join(arguments[1:])}")
        return 2
    try:
        show_report(Path(arguments[0]), _console())
    except (ValueError, OSError) as error:
        _fail(str(error))
        return 1
    return 0


def _console(*, quiet: bool = False) -> Console:
    """Shows a user's names and paths as they are: nothing in them is formatting, and lines do not break in between."""
    return Console(quiet=quiet, markup=False, emoji=False, soft_wrap=True)


def _fail(told: str) -> None:
    Console(stderr=True).print(Text.assemble(("iin-train: ", "red"), told), soft_wrap=True)


def _explained(error: Exception, run_dir: Path) -> str:
    """An error's text, and what to do about a disk that is full or a folder that cannot be written to."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error):
        return f"{error}; make room for {run_dir} and run the same command again, it goes on from the last checkpoint"
    file = Path(error.filename) if isinstance(error.filename, str) and error.filename else None
    if file and (run_dir.is_relative_to(file) or (error.errno in REFUSED and file.is_relative_to(run_dir))):
        return (
            f"--run-dir: expected a folder that can be made and written to, got {run_dir} ({error.strerror}: {file}); "
            "name another"
        )
    return str(error)


def _lines(error: BaseException, name: str) -> str:
    """The lines of a user's own code, for the recipe `name`, that led to `error`, where it does not tell them yet."""
    if name in RECIPES:
        return ""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:  # nothing forbids `raise error from error`
        chain.append(cause)
    # What we say of a failure in a user's code is raised from that failure; without a text of its own.
    found = (told_of(ValueError().with_traceback(one.__traceback__), name) for one in chain)
    told = next(filter(None, found), "")
    return "" if told in str(error) else told
