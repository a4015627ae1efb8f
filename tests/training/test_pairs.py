"""Pairs of pictures share what their kind says, and everything else is drawn anew."""

import numpy as np
import pytest
import torch
from iin_training.data.augmentation import Augmentation
from iin_training.data.colour import measure_colour
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.pairs.digits import PAIR_KINDS, DigitPairs

FACTORS = ("residual", "digit", "colour")
STILL = Augmentation(rotation=0, zoom=0, shear=0, shift=0)
CLASSES, EACH = 4, 3


def distinct_pictures(augmentation=STILL):
    """Twelve pictures in four classes: a white square, and as many white dots below it as the picture's number."""
    images = np.zeros((CLASSES * EACH, 16, 16), dtype=np.uint8)
    images[:, :4, :4] = 255
    for number, image in enumerate(images):
        image[8, : number + 1] = 255
    labels = np.arange(CLASSES * EACH, dtype=np.int64) % CLASSES
    return ColouredDigits(images, labels, size=16, augmentation=augmentation)


def numbers(images):
    """Which picture each drawn one is, read from its dots."""
    lit = (images > -1).any(dim=1)
    return lit[:, 8].sum(dim=1) - 1


def draw_pairs(kind, count=400, seed=0, factors=FACTORS, **changed):
    pairs = DigitPairs(distinct_pictures(**changed), {kind: 1.0})
    return pairs.draw(count, factors, torch.Generator().manual_seed(seed))


def test_digit_pairs_share_the_class_only():
    pairs = draw_pairs("digit")
    first, second = numbers(pairs.images_a), numbers(pairs.images_b)
    assert torch.equal(first % CLASSES, second % CLASSES)
    assert set(second[first == 0].tolist()) == {CLASSES, 2 * CLASSES}  # any other picture of the class
    assert not (first == second).any()
    difference = (measure_colour(pairs.images_a) - measure_colour(pairs.images_b)).abs().mean()
    assert float(difference) == pytest.approx(1 / 3, abs=0.03)  # of two uniform colours


def test_colour_pairs_share_the_colour_only():
    pairs = draw_pairs("colour")
    torch.testing.assert_close(measure_colour(pairs.images_a), measure_colour(pairs.images_b))
    first, second = numbers(pairs.images_a), numbers(pairs.images_b)
    assert not (first == second).any()
    chance = (EACH - 1) / (CLASSES * EACH - 1)
    assert float((first % CLASSES == second % CLASSES).double().mean()) == pytest.approx(chance, abs=0.08)


def test_all_but_colour_pairs_are_one_grey_picture_in_two_colours():
    pairs = draw_pairs("all_but_colour")
    colours = measure_colour(pairs.images_a), measure_colour(pairs.images_b)
    greys = [
        (images + 1) / 2 / colour[:, :, None, None]
        for images, colour in zip((pairs.images_a, pairs.images_b), colours, strict=True)
    ]
    torch.testing.assert_close(*greys, rtol=0, atol=1e-4)
    assert float((colours[0] - colours[1]).abs().mean()) == pytest.approx(1 / 3, abs=0.03)


def test_all_but_colour_pairs_are_distorted_alike():
    pairs = draw_pairs("all_but_colour", augmentation=Augmentation(shift=2.0))
    lit = [(images + 1).sum(dim=1) > 1e-3 for images in (pairs.images_a, pairs.images_b)]
    assert float((lit[0] == lit[1]).double().mean()) > 0.99
    assert not torch.equal(lit[0][0], distinct_pictures().grey[int(numbers(pairs.images_a)[0])][0] > 1e-3)


@pytest.mark.parametrize("factors", [FACTORS, ("colour", "residual", "digit"), ("digit", "colour")])
@pytest.mark.parametrize("kind", PAIR_KINDS)
def test_the_columns_of_shared_follow_the_order_of_the_factors(kind, factors):
    shared = draw_pairs(kind, count=5, factors=factors).shared
    assert shared.dtype == torch.bool
    assert shared.tolist() == [[name in PAIR_KINDS[kind] for name in factors]] * 5


def test_kinds_are_mixed_in_the_numbers_asked_for():
    weights = {"digit": 3, "colour": 0, "all_but_colour": 2}
    pairs = DigitPairs(distinct_pictures(), weights).draw(5, FACTORS, torch.Generator().manual_seed(0))
    assert len(pairs.images_a) == len(pairs.images_b) == len(pairs.shared) == 5
    assert pairs.shared.tolist() == [[False, True, False]] * 3 + [[True, True, False]] * 2
    assert torch.equal(numbers(pairs.images_a[3:]), numbers(pairs.images_b[3:]))


def test_what_does_not_divide_goes_to_the_commonest_kind():
    """The figures of the recipe `digits` come from these numbers."""
    pairs = DigitPairs(distinct_pictures(), {"digit": 1.5, "colour": 1.0, "all_but_colour": 0.0, "nothing": 0.0})
    shared = pairs.draw(64, FACTORS, torch.Generator().manual_seed(0)).shared
    assert shared.tolist() == [[False, True, False]] * 39 + [[False, False, True]] * 25


def test_a_kind_too_rare_for_every_batch_is_drawn_as_often_as_its_weight_says():
    pairs, generator = (
        DigitPairs(distinct_pictures(), {"digit": 1.5, "all_but_colour": 0.01, "colour": 1.0}),
        torch.Generator().manual_seed(0),
    )
    shared = torch.cat([pairs.draw(64, FACTORS, generator).shared for _ in range(500)])
    assert len(shared) == 500 * 64
    for row, weight in (([True, True, False], 0.01), ([False, True, False], 1.5), ([False, False, True], 1.0)):
        found = int((shared == torch.tensor(row)).all(dim=1).sum())
        assert found == pytest.approx(500 * 64 * weight / 2.51, rel=0.2)


@pytest.mark.parametrize("kind", PAIR_KINDS)
def test_a_generator_decides_the_pairs(kind):
    first, again, other = (draw_pairs(kind, count=8, seed=seed, augmentation=Augmentation()) for seed in (1, 1, 2))
    assert torch.equal(first.images_a, again.images_a)
    assert torch.equal(first.images_b, again.images_b)
    assert not torch.equal(first.images_a, other.images_a)


def test_a_batch_holds_random_pictures_with_their_labels():
    data = distinct_pictures()
    images, labels = data.batch(600, torch.Generator().manual_seed(0))
    assert images.shape == (600, 3, 16, 16)
    assert torch.equal(numbers(images) % CLASSES, labels)
    assert np.bincount(numbers(images), minlength=len(data)).min() > 20
    again, _ = data.batch(600, torch.Generator().manual_seed(0))
    assert torch.equal(images, again)


def test_classes_without_pictures_do_not_shift_the_others():
    images = np.zeros((12, 8, 8), dtype=np.uint8)
    images[:, 0, 0] = np.arange(10, 130, 10)
    data = ColouredDigits(images, np.array([5, 2] * 6), size=8, augmentation=STILL)
    pairs = DigitPairs(data, {"digit": 1.0}).draw(50, FACTORS, torch.Generator().manual_seed(0))
    assert len(pairs.images_a) == 50


def test_a_digit_without_another_of_its_class_is_in_no_digit_pair():
    images = np.zeros((13, 16, 16), dtype=np.uint8)
    images[:, :4, :4] = 255
    for number, image in enumerate(images):
        image[8, : number + 1] = 255
    labels = np.array([*[0, 1] * 6, 2])
    data = ColouredDigits(images, labels, size=16, augmentation=STILL)
    pairs = DigitPairs(data, {"digit": 1.0}).draw(400, FACTORS, torch.Generator().manual_seed(0))
    assert set(numbers(pairs.images_a).tolist()) == set(range(12))


def test_too_few_digits_for_pairs_are_refused():
    few = ColouredDigits(np.zeros((4, 8, 8), np.uint8), np.array([0, 0, 1, 1]), size=8, augmentation=STILL)
    with pytest.raises(ValueError, match="digit: expected at least two values with two images or more, and 10 differ"):
        DigitPairs(few, {"digit": 1.0})
    DigitPairs(few, {"digit": 0.0, "colour": 1.0}).draw(4, FACTORS, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("weights", "concept"),
    [
        ({"digit": 0.0, "colour": 0.0, "nothing": 1.0}, "digit"),
        ({"digit": 0.0, "colour": 1.0}, "digit"),
        ({"colour": 1.0, "all_but_colour": 1.0}, "digit"),
        ({"digit": 1.0, "nothing": 1.0}, "colour"),
    ],
    ids=str,
)
def test_sizes_cannot_be_estimated_of_a_concept_that_no_pair_shares_alone(weights, concept):
    with pytest.raises(ValueError, match=rf"^pairs.{concept}: expected a weight above 0, .* or set transform.sizes"):
        DigitPairs(distinct_pictures(), weights).check_estimable()
    DigitPairs(distinct_pictures(), weights | {"digit": 1.0, "colour": 0.1}).check_estimable()
