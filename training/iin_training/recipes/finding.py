"""Finding a recipe by name: one of ours, or a function in a user's file."""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from iin_training.own_model import AnyRecipe
from iin_training.recipes.digits import cmnist, cmnist_classifier, cmnist_classifier_paper, cmnist_paper, digits
from iin_training.recipes.pictures import animals, emoji, fashion, fashion_paper, mnist, mnist_paper
from iin_training.recipes.pretrained import effnet

__all__ = ["RECIPES", "find_recipe", "told_of"]

_OURS: tuple[Callable[[], AnyRecipe], ...] = (
    digits,
    cmnist,
    cmnist_classifier,
    mnist,
    fashion,
    emoji,
    animals,
    effnet,
    cmnist_paper,
    cmnist_classifier_paper,
    mnist_paper,
    fashion_paper,
)
RECIPES: Mapping[str, Callable[[], AnyRecipe]] = {recipe.__name__.replace("_", "-"): recipe for recipe in _OURS}
"""Our recipes by name."""


def find_recipe(name: str) -> Callable[[], AnyRecipe]:
    """The recipe called `name`: one of ours, or `FILE.py:FUNCTION`, a function without arguments in a user's file.

    The file is run as Python runs a script: what lies beside it can be imported.

    Raises:
        ValueError: where there is none, naming what was expected.

    """
    if name in RECIPES:
        return RECIPES[name]
    path, _, function = name.rpartition(":")
    if not path.endswith(".py"):
        raise ValueError(f"expected one of {', '.join(RECIPES)}, or FILE.py:FUNCTION, got {name!r}")
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"expected a Python file before ':{function}', found none at {path}")
    sys.path.insert(0, str(file.resolve().parent))
    spec = importlib.util.spec_from_file_location(f"iin_recipe_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that dataclasses and pickles in the file find their module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises
        del sys.modules[spec.name]
        raise ValueError(f"{path}: expected a file that Python runs, got {told_of(error, name)}") from error
    recipe = getattr(module, function, None)
    if not callable(recipe):
        found = [
            key
            for key, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == spec.name and not key.startswith("_")
        ]
        raise ValueError(
            f"expected a function {function!r} in {path}, found {', '.join(found) or 'none'}; name one after the colon"
        )

    def checked() -> AnyRecipe:
        try:
            made = recipe()
        except Exception as error:  # likewise
            raise ValueError(f"{name}: {told_of(error, name)}") from error
        if not isinstance(made, AnyRecipe):
            raise ValueError(
                f"{name}: expected the function to return an OwnModel, got {type(made).__name__}; return one"
            )
        return made

    checked.__doc__ = recipe.__doc__
    return checked


def told_of(error: Exception, name: str) -> str:
    """What went wrong, and the lines of the user's code, beside or below the file of recipe `name`, that led there."""
    folder, ours = Path(name.rpartition(":")[0]).resolve().parent, Path(__file__).parents[1]
    text = str(error) if type(error) is ValueError else "".join(traceback.format_exception_only(error)).strip()
    for frame in traceback.extract_tb(error.__traceback__):
        place = Path(frame.filename)  # not one where Python made it up, as in <frozen importlib>
        theirs = place.is_file() and place.resolve().is_relative_to(folder) and "site-packages" not in place.parts
        if theirs and ours not in place.parents:
            text += f"\n  {place.resolve().relative_to(folder)}:{frame.lineno}, in {frame.name}: {frame.line}"
    return text
