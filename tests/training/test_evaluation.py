"""Evaluation of interpretations whose worth is known beforehand."""

import numpy as np
import pytest
import torch
from iin_bundle import FactorLayout
from iin_training.data.augmentation import STILL, Augmentation
from iin_training.data.colour import draw, measure_colour
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.data.images import ImageArray
from iin_training.evaluation import DRAWN, Interpreter, _correlation, drawn_latents, evaluate
from iin_training.flows import ActNorm, Flow, interpretation_flow
from iin_training.judged_digits import classifier_figures, judge_digits
from iin_training.losses import factor_nll
from iin_training.models.frozen import FrozenModel
from iin_training.pairs import SameLabel
from iin_training.pairs.digits import DigitPairs
from iin_training.run import Run
from iin_training.stages import latents as latents_module
from iin_training.stages.latents import PairLatents, at_once
from rich.console import Console
from torch import nn

CLASSES = 3
BARS = torch.zeros(CLASSES, 1, 8, 8)
for column, bar in enumerate(BARS):
    bar[0, :, 3 * column : 3 * column + 2] = 1  # 16 bright pixels
RIGHT = FactorLayout.from_sizes({"residual": 1, "digit": CLASSES, "colour": 3})
ACCURACIES = {
    "reconstruction_digit",
    "swap_digit",
    "swap_colour_digit_kept",
    "swap_residual_digit_kept",
    "judge_accuracy",
    "prior_agreement",
    "prior_confidence",
}
ERRORS = {"swap_digit_colour_drift", "swap_colour_error", "swap_residual_colour_drift"}


def brightness(images):
    """Mean brightness of each bar, `(N, CLASSES)`."""
    lit = ((images + 1) / 2).amax(dim=1, keepdim=True)
    return torch.cat([(lit * bar).sum(dim=(1, 2, 3))[:, None] for bar in BARS], dim=1) / 16


class Knowing(nn.Module):
    """An encoder of bars whose latent is [nothing, which bar, colour]: the best interpretation there is."""

    def forward(self, images):
        shown = nn.functional.one_hot(brightness(images).argmax(dim=1), CLASSES).float()
        return torch.cat([torch.zeros(len(images), 1), shown, measure_colour(images)], dim=1)


class Drawing(nn.Module):
    """Its decoder."""

    def forward(self, latents):
        return draw(BARS[latents[:, 1:4].argmax(dim=1)], latents[:, 4:].clamp(0.05, 1))


class Naming(nn.Module):
    """A head that is certain of the bar."""

    def forward(self, latents):
        return 200 * latents[:, 1:4]


def knowing(**parts):
    return FrozenModel(Knowing(), image_shape=(3, 8, 8), value_range=(-1.0, 1.0), **{"decoder": Drawing()} | parts)


class Seeing(nn.Module):
    """A judge that is certain of the brightest bar."""

    def forward(self, images):
        return 200 * brightness(images)


def bars(count=90, augmentation=None):
    labels = np.arange(count, dtype=np.int64) % CLASSES
    images = (255 * BARS[labels, 0]).numpy().astype(np.uint8)
    return ColouredDigits(images, labels, size=8, augmentation=augmentation or Augmentation())


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, seed=0, checkpoint_every=1, console=Console(quiet=True))


PAIRS = DigitPairs(bars(augmentation=STILL), {"digit": 1.0, "colour": 1.0})


def judged(run, layout=RIGHT, judge=None):
    return judge_digits(knowing(), Flow([ActNorm(7)]), judge or Seeing(), layout, bars(), torch.arange(CLASSES), run)


def measured(run, layout=RIGHT, transform=None, model=None):
    model = model or knowing()
    held_out = PairLatents(model, PAIRS, run, draws=DRAWN)
    return evaluate(
        model,
        transform or Flow([ActNorm(7)]),
        layout,
        held_out,
        drawn_latents(held_out, run, "held_out"),
        held_out,
        run,
    )


def latents_of(run, model=None):
    return drawn_latents(PairLatents(model or knowing(), PAIRS, run, draws=DRAWN), run, "held_out")


def test_a_perfect_interpretation_reaches_every_ceiling(run):
    figures = judged(run)
    for name in ("judge_accuracy", "reconstruction_digit", "swap_digit", "swap_colour_digit_kept", "prior_agreement"):
        assert figures[name].value == 1.0, name
    assert figures["swap_residual_digit_kept"].value == 1.0
    # Of three classes in 2,000 samples the rarest comes short by the mean largest of three normal deviates, 0.846.
    assert figures["prior_rarest"].ceiling == pytest.approx(1 - 0.846 * (3 / 2000) ** 0.5, abs=0.003)
    assert figures["prior_rarest"].value == pytest.approx(figures["prior_rarest"].ceiling, abs=0.05)
    for name in ERRORS:
        assert figures[name].value == pytest.approx(figures[name].ceiling, abs=1e-3)
        assert figures[name].value < 0.01


def test_factors_that_hold_the_wrong_concept_fall_to_the_floor(run):
    exchanged = FactorLayout.from_sizes({"residual": 1, "colour": CLASSES, "digit": 3})
    figures = judged(run, exchanged)
    assert figures["swap_digit"].value == 0  # sources have other digits, so even chance hits are excluded
    assert figures["swap_digit_colour_drift"].value == pytest.approx(1 / 3, abs=0.03)  # of two uniform colours
    assert figures["swap_colour_error"].value == pytest.approx(1 / 3, abs=0.03)
    assert figures["swap_colour_digit_kept"].value == 0
    assert figures["prior_agreement"].value == pytest.approx(1 / CLASSES, abs=0.05)
    assert figures["reconstruction_digit"].value == 1.0


def test_a_residual_that_holds_everything_shows_in_the_residuals_figures(run):
    greedy = FactorLayout.from_sizes({"colour": 1, "residual": 5, "digit": 1})
    figures = judged(run, greedy)
    assert figures["swap_residual_digit_kept"].value < 0.5
    assert figures["swap_residual_colour_drift"].value > 0.1


def test_every_figure_is_there_in_range_and_between_floor_and_ceiling(run):
    figures = judged(run)
    assert set(figures) == ACCURACIES | ERRORS | {"prior_rarest"}
    for name in ACCURACIES | ERRORS:
        figure = figures[name]
        assert figure.meaning
        assert 0 <= figure.value <= 1, name
        assert figure.floor is not None
        if name in ERRORS:
            assert figure.ceiling < 0.01 < 0.3 < figure.floor < 0.36
        else:
            # A source has another digit, which nobody sees where nothing is swapped; all else is there by chance.
            assert figure.floor == pytest.approx(0 if name == "swap_digit" else 1 / CLASSES, abs=0.06)
            assert figure.ceiling is None or figure.ceiling > 0.99


class OfTen(nn.Module):
    """A head of ten classes that is certain of the fourth."""

    def forward(self, latents):
        return 200 * nn.functional.one_hot(torch.full((len(latents),), 3), 10).float()


def sevens():
    few = bars()
    few.labels = torch.tensor([0, 7] * 45)
    return few


def test_the_classes_of_a_head_are_its_own_whichever_of_them_are_held_out(run):
    figures = classifier_figures(knowing(head=OfTen()), Flow([ActNorm(7)]), RIGHT, sevens(), torch.arange(10), run)
    assert figures["head_accuracy"].floor == pytest.approx(1 / 10)
    assert figures["digit_response_of_a_7"].ceiling == pytest.approx(np.std(np.arange(10)))


class Spare(Seeing):
    """A judge with an output that stands for nothing, as where labels begin at 1."""

    def forward(self, images):
        return nn.functional.pad(super().forward(images), (0, 1), value=-200.0)


def test_outputs_that_stand_for_no_class_do_not_count(run):
    figures, spare = judged(run), judged(run, judge=Spare())
    assert spare["prior_rarest"].value == figures["prior_rarest"].value > 0.8
    assert spare["prior_confidence"].floor == pytest.approx(1 / CLASSES)
    classes = torch.arange(1, 10)  # of ten outputs
    figures = classifier_figures(knowing(head=OfTen()), Flow([ActNorm(7)]), RIGHT, sevens(), classes, run)
    assert figures["head_accuracy"].floor == pytest.approx(1 / 9)
    assert figures["digit_response_of_a_7"].ceiling == pytest.approx(np.std(np.arange(1, 10)))


def test_the_log_likelihood_is_that_of_the_prior_with_the_log_determinant(run):
    transform = Flow([ActNorm(7)])
    with torch.no_grad():
        transform.blocks[0].log_scale.fill_(0.5)
    evaluation = measured(run, transform=transform)
    latents = latents_of(run).double()
    expected = torch.distributions.Normal(0, 1).log_prob(latents * np.exp(0.5)).sum(dim=1).numpy() + 7 * 0.5
    np.testing.assert_allclose(evaluation.log_likelihoods, expected, rtol=1e-4)
    assert evaluation.figures["held_out_log_likelihood"].value == pytest.approx(expected.mean(), rel=1e-5)


def test_quantiles_increase_from_the_least_to_the_most_likely(run):
    evaluation = measured(run)
    probabilities, values = evaluation.quantiles()
    assert probabilities[0] == 0
    assert probabilities[-1] == 1
    assert (np.diff(probabilities) > 0).all()
    assert (np.diff(values) >= 0).all()
    assert values[0] == evaluation.log_likelihoods.min()
    assert values[-1] == evaluation.log_likelihoods.max()
    assert values[probabilities.index(0.5)] == pytest.approx(np.median(evaluation.log_likelihoods))


def test_drawn_latents_are_those_of_held_out_pictures_in_many_colours(run):
    latents = latents_of(run)
    assert latents.shape == (10_000, 7)
    assert len(latents[:, 1:4].argmax(dim=1).unique()) == CLASSES
    assert len(latents[:, 4:].unique(dim=0)) > 7_000  # half of the pairs share their colour
    assert torch.equal(latents, latents_of(run))


def test_a_seed_decides_the_evaluation(run):
    assert measured(run).figures == measured(run).figures


def test_a_perfect_interpretation_shares_what_pairs_share_and_its_edits_survive_the_decoder(run):
    figures = measured(run).figures
    for name in ("digit", "colour"):
        assert figures[f"{name}_shared"].value == pytest.approx(1, abs=1e-3)
        assert figures[f"{name}_shared"].floor < 0.9
        assert figures[f"{name}_edit_taken"].value == pytest.approx(1, abs=1e-2)
        assert figures[f"{name}_edit_taken"].floor < 0.9
        assert figures[f"{name}_edit_rest_kept"].value == pytest.approx(1, abs=1e-2)


def test_a_correlation_is_about_the_mean_of_every_dimension():
    numbers = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 5000, 3, generator=numbers)
    means = torch.tensor([5.0, -3.0, 0.0])
    assert _correlation(first + means, second + means) == pytest.approx(0, abs=0.03)
    assert _correlation(first + means, 0.6 * first + 0.8 * second - means) == pytest.approx(0.6, abs=0.03)
    assert _correlation(first + means, 2 * first) == pytest.approx(1)
    assert _correlation(first, means.expand(5000, 3)) == 0


def test_an_edit_that_the_decoder_does_not_show_is_not_taken(run):
    class Stubborn(Drawing):
        def forward(self, latents):
            return super().forward(torch.cat([latents[:, :4], torch.full_like(latents[:, 4:], 0.5)], dim=1))

    figures = measured(run, model=knowing(decoder=Stubborn())).figures
    assert figures["colour_edit_taken"].value < 0.95
    assert figures["colour_edit_taken"].value == pytest.approx(figures["colour_edit_taken"].floor, abs=0.02)
    assert figures["digit_edit_taken"].value == pytest.approx(1, abs=1e-2)


def test_a_head_responds_to_what_it_looks_at_only(run):
    figures = measured(run, model=knowing(head=Naming(), decoder=None)).figures
    assert figures["digit_response"].value == pytest.approx(1 - 1 / CLASSES, abs=0.05)
    assert figures["colour_response"].value == figures["residual_response"].value == 0
    assert figures["digit_response"].ceiling == figures["digit_response"].value
    assert not any("edit" in name for name in figures)


class Watched(nn.Module):
    """The same network, which notes how many pictures it took or gave, and the most at a time."""

    def __init__(self, network):
        super().__init__()
        self.network, self.most, self.total = network, 0, 0

    def forward(self, items):
        self.most, self.total = max(self.most, len(items)), self.total + len(items)
        return self.network(items)


@pytest.mark.parametrize("times", [1, 3, 24])
def test_large_pictures_are_drawn_encoded_and_decoded_in_small_parts_with_the_same_result(run, monkeypatch, times):
    """Pictures of 8x8 pass for some times as large as they may be."""
    expected = measured(run).figures
    monkeypatch.setattr(latents_module, "USUAL", 3 * 8 * 8 // times)
    drawn, draw_pairs = [], DigitPairs.draw

    def watched_draw(self, count, factors, generator):
        drawn.append(count)
        return draw_pairs(self, count, factors, generator)

    monkeypatch.setattr(DigitPairs, "draw", watched_draw)
    decoder = Watched(Drawing())
    found = measured(run, model=knowing(decoder=decoder)).figures
    assert max(drawn) <= 2000 // times
    assert min(drawn) >= min(
        500, 2000 // times // 2
    )  # no small rest, though parts of 666 and 83 divide neither 500 nor 2,000
    assert sum(drawn) == 14_000  # held-out and training pairs: 5,000 for latents, 500 at a time, 2,000 for correlations
    assert decoder.most == 500 // times
    assert found.keys() == expected.keys()
    if times == 1:
        assert found == expected
    for name, figure in found.items():  # the same pictures of three bars, other colours
        assert figure.value == pytest.approx(expected[name].value, abs=0.03 * max(1, abs(expected[name].value)))


def test_held_out_pictures_are_encoded_once_for_all_that_is_measured(run):
    (run.directory / "latents").write_text("a file where a folder should be, so that nothing is kept on the disk")
    images = ImageArray((255 * BARS[np.arange(90) % CLASSES, 0]).numpy().astype(np.uint8))
    encoder = Watched(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))
    model = FrozenModel(encoder, image_shape=(1, 8, 8), value_range=(-1.0, 1.0))
    encoder.total = 0
    held_out = PairLatents(model, SameLabel(images, np.arange(90) % CLASSES, "digit"), run, draws=DRAWN)
    layout = FactorLayout.from_sizes({"residual": 1, "digit": 3})
    evaluate(model, Flow([ActNorm(4)]), layout, held_out, drawn_latents(held_out, run, "held_out"), held_out, run)
    assert encoder.total == 90


def test_pictures_up_to_the_usual_size_are_not_drawn_in_parts():
    assert at_once(2000, (3, 64, 64)) == at_once(2000, (1, 28, 28)) == 2000
    assert at_once(2000, (3, 224, 224)) == 163
    assert at_once(500, (3, 10_000, 10_000)) == 1


def test_going_through_pictures_in_parts_changes_nothing(monkeypatch):
    factors = torch.rand(23, 7)
    whole = Interpreter(knowing(), Flow([ActNorm(7)]))
    monkeypatch.setattr(latents_module, "USUAL", 3)
    parts = Interpreter(knowing(), Flow([ActNorm(7)]))
    assert torch.equal(parts.again(factors), whole.factors(whole.images(factors)))
    assert torch.equal(parts.images(factors), whole.images(factors))


def test_what_training_pictures_have_beyond_held_out_ones_is_told(run, capsys):
    """A T that is trained on a few pictures until it knows them by heart."""
    numbers = torch.Generator().manual_seed(0)
    pictures, others = (torch.randint(0, 256, (n, 8, 8), generator=numbers, dtype=torch.uint8) for n in (24, 400))
    model = FrozenModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), image_shape=(1, 8, 8), value_range=(-1.0, 1.0))
    training, held_out = (
        PairLatents(model, SameLabel(ImageArray(some.numpy()), np.arange(len(some)) % 2, "kind"), run, draws=DRAWN)
        for some in (pictures, others)
    )
    run.console = Console(width=400)
    layout = FactorLayout.from_sizes({"residual": 2, "kind": 2})
    flow = interpretation_flow(4, blocks=4, hidden=64, depth=2, seed=0)
    latents, test_latents = (drawn_latents(pairs, run, "any") for pairs in (training, held_out))
    flow.initialize(latents)
    before = evaluate(model, flow, layout, held_out, test_latents, training, run).figures
    assert "by heart" not in capsys.readouterr().out
    optimiser = torch.optim.Adam(flow.parameters(), lr=3e-3)
    few = latents.unique(dim=0)
    for _ in range(400):
        optimiser.zero_grad()
        factor_nll(*flow(few)).mean().backward()
        optimiser.step()
    after = evaluate(model, flow, layout, held_out, test_latents, training, run).figures
    assert "T knows them by heart. More pictures, --transform.noise or fewer" in capsys.readouterr().out
    gaps = [one["held_out_log_likelihood"].ceiling - one["held_out_log_likelihood"].value for one in (before, after)]
    assert gaps[0] < 2 < gaps[1]
    assert after["kind_shared"].ceiling is not None
