"""The command `iin-train`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from iin_bundle import BundleError
from rich.console import Console
from rich.text import Text

from iin_training.config import Recipe
from iin_training.export import ExportError
from iin_training.model_card import quality_table
from iin_training.pipeline import run_recipe
from iin_training.recipes import RECIPES

__all__ = ["main"]

USAGE = """usage: iin-train run RECIPE [--run-dir DIR] [OPTIONS]

Train an interpretation network, evaluate it on held-out data and export a bundle to serve.

recipes:
{recipes}

Every setting of a recipe is an option; see them all with

  iin-train run RECIPE --help

examples:
  iin-train run digits
  iin-train run digits --transform.optimiser.steps 2000 --run-dir build/longer
  iin-train run cmnist --data.idx-dir path/to/mnist

A run that was interrupted goes on where it was when it is started again.
"""


def usage() -> str:
    """The help text, with the first line of every recipe's docstring."""
    lines = [f"  {name:8} {(recipe.__doc__ or '').splitlines()[0]}" for name, recipe in RECIPES.items()]
    return USAGE.format(recipes="\n".join(lines))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 1 failed, 2 wrong usage."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        print(usage())
        return 0
    if given[0] != "run" or len(given) < 2 or given[1] in ("-h", "--help"):
        print(usage(), file=sys.stdout if given[0] == "run" and len(given) > 1 else sys.stderr)
        return 0 if given[0] == "run" and len(given) > 1 else 2
    if given[1] not in RECIPES:
        print(f"RECIPE: expected one of {', '.join(RECIPES)}, got {given[1]!r}", file=sys.stderr)
        return 2
    return _run(given[1], given[2:])


@dataclass(frozen=True, kw_only=True)
class Command:
    """What `iin-train run RECIPE` is told."""

    run_dir: Path
    """Where checkpoints, metrics and the bundle are kept."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]


def _run(name: str, arguments: list[str]) -> int:
    recipe = RECIPES[name]
    command = tyro.cli(
        Command,
        prog=f"iin-train run {name}",
        description=recipe.__doc__,
        default=Command(run_dir=Path("build") / name, recipe=recipe()),
        args=arguments,
    )
    run_dir = command.run_dir
    console = Console()
    try:
        bundle = run_recipe(command.recipe, run_dir, console)
    except (ValueError, BundleError, ExportError, RuntimeError, FloatingPointError, OSError) as error:
        Console(stderr=True).print(Text.assemble(("iin-train: ", "red"), str(error)), soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print(f"interrupted; run the same command again to go on from the last checkpoint in {run_dir}")
        return 130
    console.print(quality_table(bundle.manifest))
    console.print(f"meanings: {bundle.directory / 'MODEL_CARD.md'}\nserve it with: iin-serve {bundle.directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
