"""The sets of real pictures: what they hold, and that nothing held out was seen in training."""

import shutil

import numpy as np
import pytest
from iin_training.config import PictureData
from iin_training.data.animals import ANIMALS, load_animals
from iin_training.data.emoji import load_emoji
from iin_training.data.picture_sets import load_grey
from iin_training.plans.held_out import told_of_data

APT = shutil.which("apt-get")


@pytest.fixture(scope="module")
def emoji():
    return load_emoji(held_out=20, seed=0)


@pytest.fixture(scope="module")
def animals():
    return load_animals(held_out=1000, seed=0)


def named(data, person):
    """The five pictures of a person, light to dark, wherever it is."""
    number = data.values["person"].index(person)
    images = np.concatenate([data.images, data.held_out_images])
    return images[np.concatenate([data.labels["person"], data.held_out_labels["person"]]) == number]


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)], ids=["grey", "colour"])
def test_the_line_on_a_data_set_tells_of_copies_held_out(shape):
    images = np.random.default_rng(0).integers(0, 256, (30, *shape), dtype=np.uint8)
    assert told_of_data("mine", images[:20], images[20:]) == "data: mine, 20 for training, 10 held out"
    images[[25, 27]] = images[[3, 4]]
    assert "10 held out; 2 of these are in training too" in told_of_data("mine", images[:20], images[20:])


def test_every_emoji_person_is_there_in_all_five_tones_of_one_part(emoji):
    for images, labels in ((emoji.images, emoji.labels), (emoji.held_out_images, emoji.held_out_labels)):
        assert images.shape[1:] == (64, 64, 3)
        persons = labels["person"].reshape(-1, 5)
        assert (persons == persons[:, :1]).all()
        assert len(set(persons[:, 0])) == len(persons)
        assert (labels["skin"].reshape(-1, 5) == np.arange(5)).all()
    seen, unseen = (set(labels["person"].tolist()) for labels in (emoji.labels, emoji.held_out_labels))
    assert not seen & unseen
    assert len(seen | unseen) == len(set(emoji.values["person"])) == 309


def test_emoji_tones_go_from_light_to_dark_on_white(emoji):
    nose = named(emoji, "nose")
    assert (nose[:, :4, :4] == 255).all()
    skin = nose[:, 32, 32].astype(int).sum(axis=1)
    assert (np.diff(skin) < 0).all()


def test_what_differs_in_gender_or_direction_only_is_held_out_together(emoji):
    for seed in range(3):
        data = load_emoji(held_out=20, seed=seed)
        unseen = {data.values["person"][number] for number in data.held_out_labels["person"]}
        for alike in (
            {"man farmer", "woman farmer", "farmer"},
            {"woman running", "woman running facing right", "runner", "man running", "man running facing right"},
            {"rightwards hand", "leftwards hand"},
            {"boy", "girl", "child"},
        ):
            assert unseen & alike in (set(), alike), seed


def test_no_held_out_emoji_is_nearly_one_that_was_trained_on(emoji):
    medium, unseen = (images[2::5].astype(np.float32) / 255 for images in (emoji.images, emoji.held_out_images))
    for image in unseen:
        for other in (image, image[:, ::-1]):  # at this tone twins differ by 0.017 at most, others by 0.025
            assert np.abs(medium - other).mean(axis=(1, 2, 3)).min() > 0.02


def test_animals_are_unique_balanced_and_white_on_black(animals):
    everything = np.concatenate([animals.images, animals.held_out_images])
    assert everything.shape == (9716, 32, 32)
    assert len(np.unique(everything.reshape(9716, -1), axis=0)) == 9716
    assert (np.bincount(animals.held_out_labels["animal"]) == 100).all()
    border = np.concatenate([everything[:, 0].ravel(), everything[:, :, 0].ravel()])
    assert border.max() == 0
    assert everything[:, 16, 16].mean() > 128


def test_animal_labels_belong_to_their_pictures(animals):
    """A giraffe is tall and a cow is wide; a zebra alone has grey stripes."""
    height, width, grey = {}, {}, {}
    for number, animal in enumerate(ANIMALS):
        images = animals.images[animals.labels["animal"] == number] > 64
        height[animal] = images.any(axis=2).sum(axis=1).mean()
        width[animal] = images.any(axis=1).sum(axis=1).mean()
        levels = animals.images[animals.labels["animal"] == number]
        grey[animal] = ((levels > 80) & (levels < 180)).mean()
    assert height["giraffe"] > width["giraffe"]
    assert width["cow"] > height["cow"]
    assert max(grey, key=grey.get) == "zebra"


@pytest.mark.parametrize(
    ("source", "concept"),
    [
        ("mnist", "digit"),
        pytest.param("fashion", "clothing", marks=pytest.mark.skipif(not APT, reason="apt-get is not installed")),
    ],
)
def test_grey_sets_keep_their_own_test_set(source, concept):
    data = load_grey(source)
    assert data.images.shape == (60_000, 32, 32)
    assert data.held_out_images.shape == (10_000, 32, 32)
    assert data.images[:, :2].max() == 0
    assert len(data.values[concept]) == 10
    assert np.bincount(data.held_out_labels[concept]).tolist() == (
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009] if source == "mnist" else [1000] * 10
    )


def test_the_seed_decides_what_is_held_out_and_the_digest_does_not_depend_on_it(animals):
    again, other = load_animals(held_out=1000, seed=0), load_animals(held_out=1000, seed=1)
    assert (again.images == animals.images).all()
    assert (other.images != animals.images).any()
    assert again.sha256 == other.sha256 == animals.sha256


@pytest.mark.parametrize(
    ("source", "held_out", "words"),
    [
        ("mnist", 1000, "expected for mnist None, since it has held-out pictures of its own, got 1000"),
        ("animals", None, "expected for animals a number to set aside, got None"),
    ],
)
def test_a_number_of_held_out_pictures_is_given_where_it_means_something(source, held_out, words):
    with pytest.raises(ValueError, match=f"data.held_out: {words}"):
        PictureData(source=source, held_out=held_out)


def test_how_many_are_held_out_must_be_possible():
    with pytest.raises(ValueError, match=r"held_out: expected a multiple of 10.*got 1001"):
        load_animals(held_out=1001, seed=0)
    with pytest.raises(ValueError, match=r"held_out: expected from 1 to 136 roles, got 137"):
        load_emoji(held_out=137, seed=0)
