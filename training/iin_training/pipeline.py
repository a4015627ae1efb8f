"""The whole way from a recipe to a verified bundle, resumable at every step."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeAlias

from iin_bundle import Bundle, FactorLayout, Figure, read_bundle
from iin_bundle.factors import RESIDUAL
from rich.console import Console
from torch import Tensor

from iin_training.config import Optimiser, PictureRecipe
from iin_training.curves import draw_curves
from iin_training.evaluation import DRAWN, Evaluation, Interpreter, drawn_latents, evaluate
from iin_training.export import Exported, export_bundle, read_checked
from iin_training.flows import Flow
from iin_training.graphs import check_exportable
from iin_training.models.checks import Findings, check_images, check_interpretable
from iin_training.models.frozen import FrozenModel
from iin_training.own_model import AnyRecipe, OwnModel
from iin_training.pairs.base import PairSource, check_batch
from iin_training.pictures import draw_pictures
from iin_training.plans.coloured_digits import DigitsPlan
from iin_training.plans.pictures import PicturesPlan
from iin_training.processes import leads, processes, wait
from iin_training.quantised_flow import QuantisedFlow, calibration_latents, quantisation_figures
from iin_training.run import SETTINGS, Run, claimed
from iin_training.stages.gaussianisation import GAUSSIANISATION, gaussianise
from iin_training.stages.latents import PairLatents, at_once, in_parts
from iin_training.stages.transform import SizeScores, choose_sizes, score_concepts, train_transform
from iin_training.subject import Subject

__all__ = ["run_recipe", "score_recipe"]

TRIED = 512  # pairs that show, by their first pictures, whether a model can be interpreted
MEASURED = "return for example {'swapped': Figure(value=0.5, meaning='what was measured')}"
Plan: TypeAlias = DigitsPlan | PicturesPlan | OwnModel


def run_recipe(recipe: AnyRecipe, directory: Path, console: Console) -> Bundle:
    """Train, evaluate and export `recipe` in `directory`; the bundle is `directory/bundle`.

    What an earlier run of the same recipe made there is reused, down to the last checkpoint. A `console` made with
    `markup=False, emoji=False` shows names and paths as they are.
    """
    plan = _plan(recipe)
    identity = json.loads(json.dumps(plan.identity(), default=str))
    finished = _finished(directory, identity)
    wait()  # nobody changes the folder before all have looked
    if finished is not None:
        console.print(f"{directory / 'bundle'}: made before with the same settings and data, reused")
        return finished
    with _begun(recipe, plan, directory, console) as run:
        if isinstance(plan, PicturesPlan):
            plan.fetch_for_figures()
        subject, findings = _prepared(plan, run)
        if isinstance(recipe, OwnModel):  # ours are known to export
            with console.status("trying the model's export"):
                check_exportable(subject.model.cpu(), subject.examples, directory)
        _interpret(recipe, subject, findings, run)
        if leads():
            draw_curves(run.metrics_path, directory / "curves.png")
            _write_settings(directory, identity)  # last: they vouch for all of it
    return read_bundle(directory / "bundle")


def score_recipe(recipe: AnyRecipe, directory: Path, console: Console) -> SizeScores:
    """What the model's latents say of each concept, before T is trained; networks that come before it are trained."""
    plan = _plan(recipe)
    with _begun(recipe, plan, directory, console) as run:
        subject, _ = _prepared(plan, run)
        with console.status("drawing pairs of each concept"):
            return score_concepts(subject.model, subject.pairs, run)


def _plan(recipe: AnyRecipe) -> Plan:
    for stage in fields(recipe):
        schedule = getattr(getattr(recipe, stage.name), "optimiser", None)
        if isinstance(schedule, Optimiser) and schedule.batch_size % processes():
            raise ValueError(
                f"{stage.name}.optimiser.batch_size: expected a multiple of the {processes()} processes, got "
                f"{schedule.batch_size}; change it, or torchrun's --nproc-per-node"
            )
    if isinstance(recipe, OwnModel):
        return recipe
    return PicturesPlan(recipe) if isinstance(recipe, PictureRecipe) else DigitsPlan(recipe)


@contextmanager
def _begun(recipe: AnyRecipe, plan: Plan, directory: Path, console: Console) -> Iterator[Run]:
    """The run, in a directory where no other run is working and no recipe of other stages has trained."""
    every = recipe.checkpoint_every
    run = Run(directory, seed=recipe.seed, checkpoint_every=every, console=console, inputs=plan.inputs())
    with claimed(directory):
        there = {pointer.parent.name for pointer in directory.glob("checkpoints/*/checkpoint.json")}
        if others := there - plan.stages - {"transform", GAUSSIANISATION}:
            raise ValueError(
                f"--run-dir: expected a folder without stages of another recipe, got {directory}, which has "
                f"{', '.join(sorted(others))}; name another"
            )
        yield run


def _prepared(plan: Plan, run: Run) -> tuple[Subject, Findings]:
    """Prepare what is interpreted, and check that it can be: a `ValueError` here says more than a failed export."""
    subject = plan.prepare(run)
    model = subject.model.to(run.device)
    with run.console.status("trying the model"):
        findings = check_interpretable(model, _tried(model, subject.pairs, run))
    if findings.constant or findings.repeated:
        run.console.print(
            f"latents: {findings.constant} of {model.size} dimensions are constant and {findings.repeated} often take "
            "one value; T is trained with a little noise there. Where they are many, try another layer (one before an "
            "activation that is mostly off)"
        )
    return subject, findings


def _tried(model: FrozenModel, pairs: PairSource, run: Run) -> Iterator[Tensor]:
    """The first pictures of some training pairs; large ones in parts, to bound memory.

    Refuses pairs that break the contract of a source, and pictures that the model was not made for.
    """
    factors, generator = (RESIDUAL, *pairs.concepts), run.generator("tried")
    most = max(2, at_once(TRIED, model.image_shape))  # one alone would not show what mixes the items of a batch
    for size in in_parts(TRIED, most):
        batch = pairs.draw(size, factors, generator)
        check_batch(batch, size, factors, "pairs")
        for images in (batch.images_a, batch.images_b):
            check_images(model, images, "pairs")
        yield batch.images_a


def _interpret(recipe: AnyRecipe, subject: Subject, findings: Findings, run: Run) -> None:
    """Learn T for the subject's model, measure it and export both."""
    console, config, model = run.console, recipe.transform, subject.model.to(run.device)
    sizes, scores = choose_sizes(config, model, subject.pairs, run)
    told = {name: round(score, 3) for name, score in scores.items()}
    console.print(f"factor sizes: {sizes}" + (f" from scores {told}" if told else ", set by hand"))
    plain = train_transform(config, model, sizes, subject.pairs, run, findings)
    gaussianised = None
    # Without concepts all is one factor, which T has shaped; without a decoder factors are compared, not samples seen.
    if config.gaussianise and model.has_decoder and subject.pairs.concepts:
        gaussianised = gaussianise(config, model, plain, sizes, subject.pairs, run, findings)
    if leads():
        _export(recipe, subject, plain, gaussianised, FactorLayout.from_sizes(sizes), run)
    wait()  # for the bundle


def _export(
    recipe: AnyRecipe, subject: Subject, plain: Flow, gaussianised: Flow | None, layout: FactorLayout, run: Run
) -> None:
    """Measure T, gaussianised where that makes held-out pictures likelier, and write the bundle."""
    console, model = run.console, subject.model
    (run.directory / SETTINGS).unlink(missing_ok=True)  # the bundle may not be that of this T
    held_out = PairLatents(model, subject.held_out, run, draws=DRAWN)
    latents = drawn_latents(held_out, run, "held_out")
    transform, further = plain, dict[str, Figure]()
    if gaussianised is not None:
        transform, further = _likelier(plain, gaussianised, model, latents, console)
    served = transform
    if recipe.bundle.precision == "int8":
        with console.status("quantising"):
            served = QuantisedFlow(transform, calibration_latents(model, subject.pairs, run))
            further |= quantisation_figures(transform, served, latents)
    with console.status("evaluating on held-out pictures"):
        # First, to look at where a figure cannot be measured.
        pictures = run.directory / "pictures.png"
        draw_pictures(pictures, model, served, layout, subject.examples, run.generator("pictures"))
        training = PairLatents(model, subject.pairs, run, draws=DRAWN)
        evaluation = evaluate(model, served, layout, held_out, latents, training, run)
        own = {} if subject.measure is None else subject.measure(model, served, layout)
        evaluation = Evaluation(_joined(own, evaluation.figures | further), evaluation.log_likelihoods)
    with console.status("exporting and checking the bundle"):
        export_bundle(
            run.directory / "bundle",
            model,
            served,
            Exported(
                name=recipe.bundle.name,
                version=recipe.bundle.version,
                layout=layout,
                evaluation=evaluation,
                latents=latents,
                images=subject.examples,
                captions=subject.captions,
                recipe=recipe.name,
                seed=recipe.seed,
                data_set=subject.data_set,
                data_set_sha256=subject.data_set_sha256,
            ),
        )


def _likelier(
    plain: Flow, gaussianised: Flow, model: FrozenModel, latents: Tensor, console: Console
) -> tuple[Flow, dict[str, Figure]]:
    """The flow that gives held-out `latents` the higher likelihood, and a figure that says which it is.

    T gaussianised is the worse one where its blocks learnt the training pictures by heart. Training pictures cannot
    show that, since T was fitted to all of them. There is no figure where a likelihood is not finite.
    """
    before, after = (float(Interpreter(model, flow).log_likelihoods(latents).mean()) for flow in (plain, gaussianised))
    kept = math.isfinite(after) and after > before
    if not kept:
        console.print(
            f"{GAUSSIANISATION}: left out, since held-out pictures are not likelier with it ({after:.1f} nats, "
            f"{before:.1f} without it). --transform.gaussianise 0 saves its time"
        )
    meaning = (
        "what the blocks that make each factor standard normal add to the mean log-likelihood of held-out latents, in "
        "nats (float32); " + ("above 0, so they are part of T" if kept else "not above 0, so they are not part of T")
    )
    gain = after - before
    figures = {f"{GAUSSIANISATION}_gain": Figure(value=gain, meaning=meaning)} if math.isfinite(gain) else {}
    return gaussianised if kept else plain, figures


def _joined(given: object, general: dict[str, Figure]) -> dict[str, Figure]:
    """All figures; a `ValueError` unless those that `measure` has given are finite numbers with names of their own."""
    if not isinstance(given, dict):
        raise ValueError(f"measure: expected a dict of Figure by name, got {type(given).__name__}; {MEASURED}")
    own = {name: _figure(name, figure) for name, figure in given.items()}
    if both := sorted(own.keys() & general.keys()):
        raise ValueError(
            f"measure: expected figures under names of their own, got {', '.join(both)} again; rename them"
        )
    return own | general


def _figure(name: object, given: object) -> Figure:
    """The figure with plain numbers: a manifest takes no tensors or numbers of numpy."""
    if not isinstance(name, str):
        raise ValueError(f"measure: expected figures by name, got the name {name!r}; {MEASURED}")
    if not isinstance(given, Figure) or not isinstance(given.meaning, str):
        what = f"the meaning {given.meaning!r}" if isinstance(given, Figure) else type(given).__name__
        raise ValueError(f"measure: {name}: expected a Figure with a text as its meaning, got {what}; {MEASURED}")
    numbers = {field: getattr(given, field) for field in ("value", "ceiling", "floor")}
    known: dict[str, Any] = {
        field: _number(name, field, number)
        for field, number in numbers.items()
        if field == "value" or number is not None
    }
    return replace(given, **known)


def _number(name: str, field: str, given: Any) -> float:
    try:
        number = float(given)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # torch's for several numbers is a RuntimeError
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(
            f"measure: {name}: expected one finite number as {field}, got {given!r}; leave out a figure, a ceiling or "
            "a floor that cannot be measured"
        )
    return number


def _finished(directory: Path, identity: Any) -> Bundle | None:
    """The bundle of an earlier run that was the same, verified again."""
    with suppress(OSError, ValueError):  # none that is whole: it is exported again from the checkpoints
        if json.loads((directory / SETTINGS).read_text()) == identity:
            return read_checked(directory / "bundle")
    return None


def _write_settings(directory: Path, identity: Any) -> None:
    partial = directory / (SETTINGS + ".partial")
    partial.write_text(json.dumps(identity, indent=2) + "\n")
    partial.replace(directory / SETTINGS)
