"""Fixtures that several folders of tests share."""

import signal
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch
from iin_training.config import Recipe
from iin_training.pipeline import run_recipe
from iin_training.recipes import digits
from rich.console import Console


def pytest_configure() -> None:
    """Let tests interrupt processes: a shell starts what runs in the background with interrupts ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what needs a GPU where there is none that onnxruntime and torch can use; fail if it was asked for."""
    if item.get_closest_marker("gpu") and not (
        "CUDAExecutionProvider" in onnxruntime.get_available_providers() and torch.cuda.is_available()
    ):
        leave = pytest.fail if item.config.option.markexpr == "gpu" else pytest.skip
        leave("needs a GPU, torch for CUDA and onnxruntime-gpu in place of onnxruntime")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small networks on a busy machine: threads that wait for each other cost more than they bring."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def brief_recipe() -> Recipe:
    """The `digits` recipe on its real data, with narrower networks and a few dozen steps."""
    recipe = digits()

    def brief(stage, steps, **narrower):
        return replace(stage, optimiser=replace(stage.optimiser, steps=steps), **narrower)

    return replace(
        recipe,
        judge=brief(recipe.judge, 40, width=8),
        autoencoder=brief(recipe.autoencoder, 60, width=8),
        transform=brief(recipe.transform, 40, blocks=3, hidden=64, depth=2),
    )


@pytest.fixture(scope="session")
def digits_bundle(tmp_path_factory: pytest.TempPathFactory, brief_recipe: Recipe, one_thread: None) -> Path:
    """A real, verified bundle of the brief recipe: copy it before breaking it."""
    return run_recipe(brief_recipe, tmp_path_factory.mktemp("digits"), Console(quiet=True)).directory
