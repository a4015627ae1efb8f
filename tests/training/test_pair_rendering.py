"""Pairs from known factors share exactly what they say, and mixtures hold each source in its share."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from iin_training.data.images import ImageArray
from iin_training.pairs import EverythingBut, GenerativeFactors, Mixed, SameLabel, Sharing, Unrelated
from iin_training.pairs.mixed import _round_shares

FACTORS = ("residual", "digit", "colour", "tilt")
CHANNELS = {"digit": 0, "colour": 1, "tilt": 2}


def uniform(count, generator):
    return torch.rand(count, generator=generator)


def render(values, generator):
    """Each factor is the level of one channel's upper half; the lower half is noise that has no name."""
    levels = torch.stack([values[name] for name in CHANNELS], dim=1)
    images = levels[:, :, None, None].repeat(1, 1, 4, 4)
    images[:, :, 2:] = torch.rand(len(images), 1, 2, 1, generator=generator)
    return images


def render_in_place(values, generator):
    """The same, by a function that changes the values that it is given."""
    images = render(values, generator)
    for value in values.values():
        value.mul_(0.5)
    return images


def three_factors(**changed):
    return GenerativeFactors(render, dict.fromkeys(CHANNELS, uniform) | changed)


def drawn(source, count=600, seed=0, factors=FACTORS):
    return source.draw(count, factors, torch.Generator().manual_seed(seed))


def value_pairs(pairs):
    """Value of each factor in the first and second images, by name."""
    both = {name: (pairs.images_a[:, c, 0, 0], pairs.images_b[:, c, 0, 0]) for name, c in CHANNELS.items()}
    return both | {"residual": (pairs.images_a[:, 0, 3, 0], pairs.images_b[:, 0, 3, 0])}


SOURCES = {
    "one at a time": lambda: three_factors(),
    "digit": lambda: Sharing(three_factors(), ["digit"]),
    "digit, rendered in place": lambda: Sharing(
        GenerativeFactors(render_in_place, dict.fromkeys(CHANNELS, uniform)), ["digit"]
    ),
    "two": lambda: Sharing(three_factors(), ["tilt", "digit"]),
    "digit and residual": lambda: Sharing(three_factors(), ["digit", "residual"]),
    "nothing": lambda: Sharing(three_factors(), []),
    "everything but colour": lambda: EverythingBut(three_factors(), "colour"),
    "everything but residual": lambda: EverythingBut(three_factors(), "residual"),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_what_is_shared_is_equal_and_everything_else_is_independent(source):
    pairs = drawn(source())
    for column, name in enumerate(FACTORS):
        first, second = value_pairs(pairs)[name]
        shared = pairs.shared[:, column]
        assert torch.equal(first[shared], second[shared])
        if not shared.all():
            rest = (~shared).numpy()
            assert not (first[rest] == second[rest]).any()
            assert abs(np.corrcoef(first[rest].numpy(), second[rest].numpy())[0, 1]) < 0.2
        # Whatever is shared, both images of a pair look like any image.
        for values in (first, second):
            assert float(values.mean()) == pytest.approx(0.5, abs=0.06)
            assert float(values.std()) == pytest.approx(1 / math.sqrt(12), abs=0.03)


def test_one_factor_at_a_time_as_often_as_any_other():
    shared = drawn(three_factors(), 602).shared
    assert (shared.sum(dim=1) == 1).all()
    assert not shared[:, 0].any()
    assert sorted(shared.sum(dim=0).tolist()) == [0, 200, 201, 201]
    assert three_factors().concepts == ("digit", "colour", "tilt")


@pytest.mark.parametrize(
    ("source", "concepts", "row"),
    [
        (Sharing(three_factors(), {"tilt", "digit", "residual"}), ("digit", "tilt"), [True, True, False, True, False]),
        (Sharing(three_factors(), ()), (), [False] * 5),
        (EverythingBut(three_factors(), "colour"), ("colour",), [True, True, False, True, True]),
    ],
    ids=["sharing", "nothing", "everything but"],
)
def test_a_set_is_told_for_the_factors_of_the_model(source, concepts, row):
    assert source.concepts == concepts
    assert drawn(source, 2, factors=(*FACTORS, "pose")).shared.tolist() == [row] * 2


def test_a_sampler_named_residual_is_no_concept():
    def brighter(values, generator):
        return render(values, generator) + 10 * values["residual"][:, None, None, None]

    source = GenerativeFactors(
        brighter, dict.fromkeys(CHANNELS, uniform) | {"residual": lambda n, g: torch.randint(9, (n,), generator=g)}
    )
    assert source.concepts == tuple(CHANNELS)
    pairs = drawn(source)
    steps = [(images // 10).amax(dim=(1, 2, 3)) for images in (pairs.images_a, pairs.images_b)]
    assert float((steps[0] == steps[1]).double().mean()) < 0.2
    alike = drawn(EverythingBut(source, "colour"))
    assert torch.equal(alike.images_a[:, 0], alike.images_b[:, 0])


BAD = {
    "no factors": (lambda: GenerativeFactors(render, {}), "factors: expected at least one besides residual"),
    "residual only": (lambda: GenerativeFactors(render, {"residual": uniform}), "factors: expected at least one"),
    "name": (lambda: GenerativeFactors(render, {"!digit": uniform}), "factors: expected a name"),
    "too few values": (
        lambda: drawn(three_factors(tilt=lambda n, g: torch.rand(3, generator=g)), 8),
        r"factors: expected \d values, .* from the sampler of tilt, got a tensor of \(3,\)",
    ),
    "a single value": (
        lambda: drawn(three_factors(tilt=lambda n, g: torch.rand((), generator=g)), 8),
        r"sampler of tilt, got a tensor of \(\)",
    ),
    "double images": (
        lambda: drawn(GenerativeFactors(lambda v, g: render(v, g).double(), dict.fromkeys(CHANNELS, uniform))),
        "render: expected float32 images .* got torch.float64",
    ),
    "flat images": (
        lambda: drawn(GenerativeFactors(lambda v, g: render(v, g).flatten(1), dict.fromkeys(CHANNELS, uniform))),
        r"render: expected float32 images of \(200, C, H, W\), got torch.float32 of \(200, 48\)",
    ),
    "unknown shared": (lambda: Sharing(three_factors(), ["pose"]), r"shared: expected factors of the source \(digit, "),
    "shared a string": (lambda: Sharing(three_factors(), "digit"), "shared: expected a collection of names"),
    "unknown excepted": (lambda: EverythingBut(three_factors(), "pose"), "concept: expected factors .* got pose"),
    "no weights": (lambda: Mixed([]), "sources: expected finite weights .* got none"),
    "no weight": (
        lambda: Mixed([three_factors(), Unrelated(grey())]),
        r"sources: expected each with its weight, as in Mixed\(\[\(first, 2.0\), .* got: cannot unpack",
    ),
    "one alone": (lambda: Mixed(three_factors()), "sources: expected each with its weight"),
    "no number": (lambda: Mixed([(three_factors(), None)]), "sources: expected each with its weight"),
    "no source": (lambda: Mixed([(grey(), 1)]), r"sources: expected sources of pairs, .* got ImageArray"),
    "all zero": (lambda: Mixed({three_factors(): 0.0}), "sources: expected finite weights"),
    "negative": (lambda: Mixed([(three_factors(), 1), (three_factors(), -1)]), r"got \[1.0, -1.0\]"),
    "not finite": (lambda: Mixed([(three_factors(), math.nan)]), "sources: expected finite weights"),
    "other shapes": (
        lambda: drawn(Mixed([(three_factors(), 1), (Unrelated(grey(channels=1)), 1)])),
        r"images: expected the same .* got 1x4x4 and 3x4x4",
    ),
    "spelling": (
        lambda: Mixed([(three_factors(), 1), (SameLabel(grey(), [0, 1] * 8, "Digit"), 1)]),
        "sources: expected one spelling of a concept, got 'digit' and 'Digit'",
    ),
}


def grey(channels=3):
    return ImageArray(np.zeros((16, 4, 4, channels), np.uint8))


@pytest.mark.parametrize(("make", "told"), BAD.values(), ids=BAD)
def test_sources_that_cannot_be_are_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(count=st.integers(1, 2000), weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12))
def test_shares_are_rounded_exactly(count, weights):
    shares = [weight / sum(weights) for weight in weights]
    numbers = _round_shares(count, shares)
    assert sum(numbers) == count
    assert all(abs(number - count * share) < 1 + 1e-6 for number, share in zip(numbers, shares, strict=True))
    assert _round_shares(count, shares) == numbers


def test_equal_shares_are_rounded_in_the_order_of_the_sources():
    assert _round_shares(8, [1 / 3] * 3) == [3, 3, 2]
    assert _round_shares(100, [0.29, 0.71]) == [29, 71]


@pytest.mark.parametrize("form", [dict, list])
def test_a_mixture_holds_its_sources_in_order_and_in_their_shares(form):
    source = three_factors()
    parts = [(Sharing(source, ["digit"]), 2.0), (EverythingBut(source, "colour"), 0.5), (Unrelated(grey()), 1.5)]
    mixed = Mixed(form(parts))
    assert mixed.concepts == ("digit", "colour")
    pairs = drawn(mixed, 80)
    assert pairs.shared.tolist() == (
        [[False, True, False, False]] * 40 + [[True, True, False, True]] * 10 + [[False] * 4] * 30
    )
    assert (pairs.images_a[50:] == -1).all()
    digit = value_pairs(pairs)["digit"]
    assert torch.equal(digit[0][:50], digit[1][:50])


def test_a_source_too_rare_for_every_batch_is_drawn_as_often_as_its_weight_says():
    mixed = Mixed([(three_factors(), 100), (Unrelated(grey()), 1)])
    generator = torch.Generator().manual_seed(0)
    batches = [mixed.draw(20, FACTORS, generator).shared for _ in range(1000)]
    assert all(len(shared) == 20 for shared in batches)
    rare = sum(int((shared.sum(dim=1) == 0).sum()) for shared in batches)
    assert rare == pytest.approx(20 * 1000 / 101, rel=0.2)


def test_a_single_pair_is_drawn_of_either_source():
    mixed = Mixed([(Sharing(three_factors(), ["digit"]), 1), (Unrelated(grey()), 1)])
    generator = torch.Generator().manual_seed(0)
    digit = sum(int(mixed.draw(1, FACTORS, generator).shared[0, 1]) for _ in range(400))
    assert digit == pytest.approx(200, rel=0.2)


def test_nothing_is_left_to_chance_where_every_source_gets_a_pair():
    parts = [Sharing(three_factors(), ["digit"]), Unrelated(grey()), Sharing(three_factors(), ["tilt"])]
    mixed, first, second = Mixed([(part, 1.0) for part in parts]), *(torch.Generator().manual_seed(3) for _ in range(2))
    found = mixed.draw(8, FACTORS, first)
    expected = [part.draw(number, FACTORS, second) for part, number in zip(parts, (3, 3, 2), strict=True)]
    assert torch.equal(found.images_a, torch.cat([batch.images_a for batch in expected]))
    assert torch.equal(first.get_state(), second.get_state())


def test_a_source_of_weight_0_is_left_out_with_its_concepts():
    mixed = Mixed([(SameLabel(grey(), [0, 1] * 8, "age"), 0), (Sharing(three_factors(), ["digit"]), 1)])
    assert mixed.concepts == ("digit",)
    assert drawn(mixed, 4).shared.tolist() == [[False, True, False, False]] * 4


def test_two_sources_may_speak_of_one_concept():
    mixed = Mixed([(SameLabel(grey(), [0, 1] * 8, "digit"), 1), (three_factors(), 1)])
    assert mixed.concepts == ("digit", "colour", "tilt")
    assert drawn(mixed, 12).shared[:, 1].sum() == 6 + 2
