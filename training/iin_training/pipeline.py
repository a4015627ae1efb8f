"""The whole way from a recipe to a verified bundle, resumable at every step."""

import json
from pathlib import Path
from typing import Any

from iin_bundle import Bundle, BundleError, FactorLayout, check_golden, read_bundle
from iin_bundle.factors import RESIDUAL
from rich.console import Console

from iin_training.curves import draw_curves
from iin_training.evaluation import Evaluation, evaluate, held_out_latents
from iin_training.export import Exported, export_bundle, open_runner
from iin_training.models.checks import check_interpretable
from iin_training.own_model import AnyRecipe, OwnModel
from iin_training.run import Run
from iin_training.stages.coloured_digits import DigitsPlan
from iin_training.stages.transform import SizeScores, choose_sizes, score_concepts, train_transform
from iin_training.subject import Subject

__all__ = ["run_recipe", "score_recipe"]

TRIED = 512  # pictures that show whether a model can be interpreted
SETTINGS = "settings.json"


def run_recipe(recipe: AnyRecipe, directory: Path, console: Console) -> Bundle:
    """Train, evaluate and export `recipe` in `directory`; the bundle is `directory/bundle`.

    What an earlier run of the same recipe made there is reused, down to the last checkpoint.
    """
    plan = _plan(recipe)
    identity = json.loads(json.dumps(plan.identity(), default=str))
    if (bundle := _finished(directory, identity)) is not None:
        console.print(f"{directory / 'bundle'}: made before with the same settings and data, reused")
        return bundle
    run = _run(recipe, plan, directory, console)
    bundle = _interpret(recipe, plan.prepare(run), run)
    draw_curves(run.metrics_path, directory / "curves.png")
    _write_settings(directory, identity)
    return bundle


def score_recipe(recipe: AnyRecipe, directory: Path, console: Console) -> SizeScores:
    """What the model's latents say of each concept, before T is trained; a first stage is trained if need be."""
    plan = _plan(recipe)
    run = _run(recipe, plan, directory, console)
    subject = plan.prepare(run)
    return score_concepts(subject.model.to(run.device), subject.pairs, run)


def _plan(recipe: AnyRecipe) -> DigitsPlan | OwnModel:
    return recipe if isinstance(recipe, OwnModel) else DigitsPlan(recipe)


def _run(recipe: AnyRecipe, plan: DigitsPlan | OwnModel, directory: Path, console: Console) -> Run:
    every = recipe.checkpoint_every
    return Run(directory, seed=recipe.seed, checkpoint_every=every, console=console, inputs=plan.inputs())


def _interpret(recipe: AnyRecipe, subject: Subject, run: Run) -> Bundle:
    """Learn T for the subject's model, measure it and export both."""
    console, config, model = run.console, recipe.transform, subject.model.to(run.device)
    factors = (RESIDUAL, *subject.pairs.concepts)
    findings = check_interpretable(model, subject.pairs.draw(TRIED, factors, run.generator("tried")).images_a)
    if findings.constant or findings.repeated:
        console.print(
            f"latents: {findings.constant} of {model.size} dimensions are constant and {findings.repeated} often take "
            "one value; T is trained with a little noise there"
        )
    sizes, scores = choose_sizes(config, model, subject.pairs, run)
    told = {name: round(score, 3) for name, score in scores.items()}
    console.print(f"factor sizes: {sizes}" + (f" from scores {told}" if told else ", set by hand"))
    transform = train_transform(config, model, sizes, subject.pairs, run, findings)
    layout = FactorLayout.from_sizes(sizes)
    with console.status("evaluating on held-out pictures"):
        latents = held_out_latents(model, subject.held_out, run)
        evaluation = evaluate(model, transform, layout, subject.held_out, latents, run)
        if subject.measure is not None:
            figures = subject.measure(model, transform, layout) | evaluation.figures
            evaluation = Evaluation(figures, evaluation.log_likelihoods)
    with console.status("exporting and checking the bundle"):
        return export_bundle(
            run.directory / "bundle",
            model,
            transform,
            Exported(
                name=recipe.bundle.name,
                version=recipe.bundle.version,
                layout=layout,
                evaluation=evaluation,
                latents=latents,
                images=subject.examples,
                captions=list(subject.captions),
                recipe=recipe.name,
                seed=recipe.seed,
                data_set=subject.data_set,
                data_set_sha256=subject.data_set_sha256,
            ),
        )


def _finished(directory: Path, identity: Any) -> Bundle | None:
    """The bundle of an earlier run that was the same, verified again."""
    path = directory / SETTINGS
    if not path.is_file() or json.loads(path.read_text()) != identity:
        return None
    try:
        bundle = read_bundle(directory / "bundle")
        runs = {role: open_runner(bundle.graph_path(role)) for role in bundle.manifest.graphs}
        check_golden(bundle, lambda role, items: runs[role](items))
    except BundleError:
        return None  # exported again from the checkpoints
    return bundle


def _write_settings(directory: Path, identity: Any) -> None:
    partial = directory / (SETTINGS + ".partial")
    partial.write_text(json.dumps(identity, indent=2) + "\n")
    partial.replace(directory / SETTINGS)
