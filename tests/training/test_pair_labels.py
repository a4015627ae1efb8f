"""Pairs by class label share the label, are balanced, and are independent in everything else."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from iin_training.data.augmentation import Augmentation
from iin_training.data.images import ImageArray, ImageFiles, image_folder, labels_of_folders
from iin_training.pairs import MIN_PAIRS, SameLabel, Unrelated, Variants
from PIL import Image
from rich.console import Console

FACTORS = ("residual", "digit")


def numbered(count):
    """Images of one level each, which is the number of the image."""
    return ImageArray(np.arange(count, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2))


def numbers(images):
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().long()


def drawn(source, count, seed=0):
    pairs = source.draw(count, FACTORS, torch.Generator().manual_seed(seed))
    return numbers(pairs.images_a), numbers(pairs.images_b), pairs.shared


def frequencies(values, size):
    return np.bincount(values.numpy(), minlength=size) / len(values)


labellings = st.lists(
    st.one_of(st.none(), st.sampled_from(["cat", "dog", 0, 1.5, -1])), min_size=12, max_size=60
).filter(lambda labels: len({label for label in labels if labels.count(label) > 4 and label is not None}) > 1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(labels=labellings, balanced=st.booleans(), seed=st.integers(0, 2**31))
def test_a_pair_is_two_different_labelled_images_of_one_label(labels, balanced, seed):
    source = SameLabel(numbered(len(labels)), labels, "digit", balanced=balanced, drop_single=True)
    first, second, shared = drawn(source, 40, seed)
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        assert a != b
        assert labels[a] == labels[b]
        assert labels[a] is not None
    assert shared.tolist() == [[False, True]] * 40


RARE = np.repeat([0, 1, 2], [90, 28, 2])


@pytest.mark.parametrize(
    ("balanced", "expected"), [(True, [1 / 3, 1 / 3, 1 / 3]), (False, [0.75, 28 / 120, 2 / 120])], ids=["even", "as is"]
)
def test_classes_come_evenly_or_as_often_as_their_images(balanced, expected):
    source = SameLabel(numbered(len(RARE)), RARE, "digit", balanced=balanced)
    first, second, _ = drawn(source, 60_000)
    np.testing.assert_allclose(frequencies(torch.from_numpy(RARE)[first], 3), expected, atol=0.01)
    # Every ordered pair of a class is as likely as any other: the rare class has two.
    rare = first >= 118
    if balanced:
        np.testing.assert_allclose(float((first[rare] == 118).double().mean()), 0.5, atol=0.03)
        np.testing.assert_allclose(frequencies(first[first < 90], 90), 1 / 90, atol=0.004)
        np.testing.assert_allclose(frequencies(second[second < 90], 90), 1 / 90, atol=0.004)


def test_labels_that_are_tensors_of_one_number_count_as_these_numbers():
    each = [torch.tensor(label) for label in np.arange(40) % 4]  # as a TensorDataset gives them
    assert (
        SameLabel(numbered(40), each, "digit").digest() == SameLabel(numbered(40), np.arange(40) % 4, "digit").digest()
    )


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_an_array_among_the_labels_is_refused_wherever_it_is(kind):
    with pytest.raises(ValueError, match=r"labels: expected one number or string an image"):
        SameLabel(numbered(40), [0, 1] * 19 + [0, kind([1])], "digit")


class Missing:
    """As `pandas.NA`, which is neither equal to itself nor different."""

    def __ne__(self, other):
        return self

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = object.__hash__


def test_images_without_a_label_are_left_out():
    labels = ["a", "b"] * 5 + [None, math.nan, np.datetime64("NaT"), Missing()]
    first, second, _ = drawn(SameLabel(numbered(14), labels, "digit"), 500)
    assert set(first.tolist()) | set(second.tolist()) == set(range(10))


@pytest.mark.parametrize(
    "make", [lambda images: SameLabel(images, [0, 1] * 8, "digit"), Unrelated], ids=["labels", "none"]
)
@pytest.mark.parametrize(
    "given", [[f"{number}.png" for number in range(16)], torch.rand(16, 1, 4, 4)], ids=["paths", "a tensor"]
)
def test_what_is_no_source_of_images_is_refused(make, given):
    with pytest.raises(
        ValueError, match=rf"^images: expected ImageFiles, .* got {type(given).__name__}; give paths to"
    ):
        make(given)


def test_everything_else_is_independent_in_a_pair():
    labels = np.arange(200) % 2
    first, second, _ = drawn(SameLabel(numbered(200), labels, "digit"), 4000)
    other_a, other_b = (which // 2 % 2 for which in (first, second))  # an attribute that no label tells
    table = np.histogram2d(other_a.numpy(), other_b.numpy(), bins=2)[0] / 4000
    np.testing.assert_allclose(table, 0.25, atol=0.03)
    position = np.corrcoef(first.numpy() // 2, second.numpy() // 2)[0, 1]
    assert abs(position) < 0.06


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1] * 8,
        np.array([0, 1] * 8),
        np.array(["a", "b"] * 8),
        torch.tensor([0, 1] * 8),
        np.array([0.0, np.nan, 2, 2] * 4),
    ],
    ids=["list", "array", "strings", "tensor", "nan"],
)
def test_labels_of_any_kind_are_understood(labels):
    first, second, _ = drawn(SameLabel(numbered(16), labels, "digit"), 50)
    assert all(labels[a] == labels[b] for a, b in zip(first.tolist(), second.tolist(), strict=True))


def test_folders_of_classes_become_pairs(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(8):
            level = number + 100 * (name == "dog")
            Image.new("L", (4, 4), level).save(tmp_path / name / f"{number}.png")
    images = ImageFiles(image_folder(tmp_path), size=(4, 4), folder=tmp_path, console=Console(quiet=True))
    first, second, _ = drawn(SameLabel(images, labels_of_folders(images), "digit"), 100)
    assert torch.equal(first >= 100, second >= 100)
    assert 30 < int((first >= 100).sum()) < 70


def test_unrelated_pairs_are_independent_and_share_nothing():
    first, second, shared = drawn(Unrelated(numbered(50)), 8000)
    assert not shared.any()
    assert (first != second).all()
    for which in (first, second):
        np.testing.assert_allclose(frequencies(which, 50), 1 / 50, atol=0.01)
    assert abs(np.corrcoef(first.numpy(), second.numpy())[0, 1]) < 0.06
    two = {tuple(pair) for pair in torch.stack(drawn(Unrelated(numbered(2)), 40)[:2], dim=1).tolist()}
    assert two == {(0, 1), (1, 0)}


BAD = {
    "too few labels": ({"labels": [0, 1]}, "labels: expected one for each of the 12 images, got 2.*kept"),
    "None for labels": ({"labels": None}, "labels: expected a list or an array .* got NoneType"),
    "labels by name": ({"labels": {"0": 0}}, "labels: expected a list or an array with one for each image.* got dict"),
    "two dimensions": ({"labels": np.zeros((12, 2), int)}, "labels: expected one number or string an image"),
    "dicts": (
        {"labels": [{"digit": 0}] * 12},
        r"labels: expected one number or string .* got \{'digit': 0\} among them",
    ),
    "numbers and texts": ({"labels": [0, 1, "1"] * 4}, "^labels: expected numbers or texts, not both, got 1 as either"),
    "single": (
        {"labels": [0] * 6 + [1] * 5 + ["x"]},
        "digit: expected at least two images .* one of 'x'; .*drop_single",
    ),
    "all single": ({"labels": list(range(12))}, "one of 0, 1, 2, 3, 4 and 7 more"),
    "one class": ({"labels": [3] * 12}, "digit: expected at least two values .* got 1 values and 66 pairs"),
    "no labels": ({"labels": [None] * 12}, "got 0 values and 0 pairs from 0 labelled"),
    "few pairs": (
        {"labels": [0, 0, 0, 1, 1, 1] + [None] * 6},
        f"{MIN_PAIRS} different pairs in all, got 2 values and 6",
    ),
    "nothing left": ({"labels": list(range(12)), "drop_single": True}, "got 0 values"),
}


@pytest.mark.parametrize(("changed", "told"), BAD.values(), ids=BAD)
def test_labels_that_make_no_pairs_are_refused(changed, told):
    with pytest.raises(ValueError, match=told):
        SameLabel(numbered(12), concept="digit", **changed)


def test_one_image_is_related_to_none():
    with pytest.raises(ValueError, match="images: expected at least 2, got 1"):
        Unrelated(numbered(1))


def test_variants_are_two_of_one_group_that_share_everything_but_the_concept():
    first, second, shared = drawn(Variants(numbered(60), np.arange(60) // 5, "digit"), 2000)
    assert torch.equal(first // 5, second // 5)
    assert bool((first != second).all())
    assert shared.tolist() == [[True, False]] * 2000


def test_variants_are_augmented_alike():
    grey = np.random.default_rng(0).integers(0, 256, (20, 8, 8)).astype(np.uint8)
    images = ImageArray(grey.repeat(2, axis=0), augmentation=Augmentation())  # two that are one picture
    pairs = Variants(images, np.arange(40) // 2, "digit").draw(50, FACTORS, torch.Generator().manual_seed(0))
    assert torch.equal(pairs.images_a, pairs.images_b)
    assert len({image.numpy().tobytes() for image in pairs.images_a}) == 50


def test_groups_of_variants_come_as_often_whatever_their_size():
    first, _, _ = drawn(Variants(numbered(len(RARE)), RARE, "digit"), 6000)
    np.testing.assert_allclose(frequencies(torch.from_numpy(RARE)[first], 3), 1 / 3, atol=0.03)


def test_groups_of_one_image_have_no_variants_and_can_be_left_out():
    groups = np.array([0] * 6 + [1] * 6 + [2])
    with pytest.raises(ValueError, match=r"digit: expected at least two images of each group, .*set drop_single"):
        Variants(numbered(13), groups, "digit")
    first, second, _ = drawn(Variants(numbered(13), groups, "digit", drop_single=True), 500)
    assert set(first.tolist()) | set(second.tolist()) == set(range(12))


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ([0, 1], "^groups: expected one for each of the 12 images, got 2; .*which groups remain"),
        (np.zeros((12, 2), int), "^groups: expected one number or string an image"),
        (["a"] * 12, "^digit: expected at least two groups with .* got 1 groups and 66 pairs"),
    ],
    ids=["too few", "two dimensions", "one group"],
)
def test_groups_are_refused_by_their_own_name(groups, told):
    with pytest.raises(ValueError, match=told):
        Variants(numbered(12), groups, "digit")
