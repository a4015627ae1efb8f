"""The whole way from a recipe to a verified bundle, resumable at every step."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from iin_bundle import Bundle, BundleError, FactorLayout, check_golden, read_bundle
from rich.console import Console

from iin_training.config import Recipe
from iin_training.curves import draw_curves
from iin_training.data.colour import draw, random_colours
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.data.digits import load_digits
from iin_training.evaluation import evaluate, held_out_latents
from iin_training.export import Exported, export_bundle, open_runner
from iin_training.models.autoencoder import freeze
from iin_training.run import Run
from iin_training.stages.first_stage import train_first_stage
from iin_training.stages.judge import train_judge
from iin_training.stages.transform import estimate_sizes, train_transform

__all__ = ["run_recipe"]

EXAMPLES = 64  # held-out pictures that the exported graphs are compared with the networks on
PREVIEWS = 12  # of them, written beside the graphs
SETTINGS = "settings.json"


def run_recipe(recipe: Recipe, directory: Path, console: Console) -> Bundle:
    """Train, evaluate and export `recipe` in `directory`; the bundle is `directory/bundle`.

    What an earlier run of the same recipe made there is reused, down to the last checkpoint.
    """
    settings = json.loads(json.dumps(asdict(recipe), default=str))
    digits = load_digits(recipe.data.idx_dir, held_out=recipe.data.held_out, seed=recipe.seed)
    if (bundle := _finished(directory, settings, digits.sha256)) is not None:
        console.print(f"{directory / 'bundle'}: made before with the same settings and data, reused")
        return bundle
    size = recipe.data.image_size
    inputs = {"data": asdict(recipe.data) | {"idx_dir": None, "sha256": digits.sha256}}
    run = Run(directory, seed=recipe.seed, checkpoint_every=recipe.checkpoint_every, console=console, inputs=inputs)
    console.print(f"data: {digits.name}, {len(digits.labels)} for training, {len(digits.held_out_labels)} held out")
    data = ColouredDigits(digits.images, digits.labels, size=size, augmentation=recipe.data.augmentation)
    held_out = ColouredDigits(
        digits.held_out_images, digits.held_out_labels, size=size, augmentation=recipe.data.augmentation
    )
    judge = train_judge(recipe.judge, data, image_size=size, classes=digits.classes, run=run)
    encoder = train_first_stage(recipe.autoencoder, data, image_size=size, run=run)
    sizes, scores = estimate_sizes(recipe.transform, encoder, data, run)
    told = {name: round(score, 3) for name, score in scores.items()}
    console.print(f"factor sizes: {sizes}" + (f" from scores {told}" if told else ", set by hand"))
    transform = train_transform(recipe.transform, encoder, sizes, data, run)

    with console.status("evaluating on held-out pictures"):
        layout = FactorLayout.from_sizes(sizes)
        evaluation = evaluate(encoder, transform, judge, layout, held_out, run)
        latents = held_out_latents(encoder, held_out, run)
    with console.status("exporting and checking the bundle"):
        generator = run.generator("previews")
        chosen = torch.randperm(len(held_out), generator=generator)[torch.arange(EXAMPLES) % len(held_out)]
        images = draw(held_out.grey[chosen], random_colours(len(chosen), generator))
        bundle = export_bundle(
            directory / "bundle",
            freeze(encoder),
            transform,
            Exported(
                name=recipe.bundle.name,
                version=recipe.bundle.version,
                layout=layout,
                evaluation=evaluation,
                latents=latents,
                images=images,
                captions=[f"digit-{int(label)}" for label in held_out.labels[chosen[:PREVIEWS]]],
                recipe=recipe.name,
                seed=recipe.seed,
                data_set=digits.name,
                data_set_sha256=digits.sha256,
            ),
        )
    draw_curves(run.metrics_path, directory / "curves.png")
    _write_settings(directory, settings)
    return bundle


def _finished(directory: Path, settings: object, data_sha256: str) -> Bundle | None:
    """The bundle of an earlier run with the same settings and data, verified again."""
    path = directory / SETTINGS
    if not path.is_file() or json.loads(path.read_text()) != settings:
        return None
    try:
        bundle = read_bundle(directory / "bundle")
        if bundle.manifest.provenance.data_set_sha256 != data_sha256:
            return None  # the files that the settings name hold something else by now
        runs = {role: open_runner(bundle.graph_path(role)) for role in bundle.manifest.graphs}
        check_golden(bundle, lambda role, items: runs[role](items))
    except BundleError:
        return None  # exported again from the checkpoints
    return bundle


def _write_settings(directory: Path, settings: object) -> None:
    partial = directory / (SETTINGS + ".partial")
    partial.write_text(json.dumps(settings, indent=2) + "\n")
    partial.replace(directory / SETTINGS)
