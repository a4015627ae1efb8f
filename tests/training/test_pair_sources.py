"""What every source of pairs promises, whatever its pairs share."""

import json

import numpy as np
import pytest
import torch
from iin_training.data.augmentation import Augmentation
from iin_training.data.images import ImageArray, ImageFiles, image_folder
from iin_training.pairs import (
    EverythingBut,
    GenerativeFactors,
    ListedPairs,
    Mixed,
    PairBatch,
    SameAttribute,
    SameLabel,
    Shares,
    Sharing,
    Sketches,
    Unrelated,
    Variants,
    read_attributes,
)
from iin_training.pairs.base import check_concept, join_batches, split_evenly
from PIL import Image

FACTORS = ("residual", "digit", "colour")
IMAGES = 24


def numbered(**changed):
    """Noise, so that any two images, and any two distortions of one, differ."""
    return ImageArray(np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8, 3)).astype(np.uint8), **changed)


def rendered():
    def render(values, generator):
        grey = values["digit"][:, None, None, None] + 0.1 * torch.rand(
            len(values["digit"]), 1, 8, 8, generator=generator
        )
        return (grey * values["colour"][:, :, None, None]).float()

    return GenerativeFactors(
        render,
        {
            "digit": lambda count, generator: torch.randint(10, (count,), generator=generator),
            "colour": lambda count, generator: torch.rand(count, 3, generator=generator),
        },
    )


def attributes(folder, images):
    lines = [f"{images.name(index)},{index % 3},{index % 2}" for index in range(len(images))]
    (folder / "table.csv").write_text("\n".join(["file,digit,colour", *lines]))
    return SameAttribute(images, read_attributes(folder / "table.csv"))


def listed(folder, images):
    sets = (["digit"], ["colour"], ["residual", "digit"], ["!colour"])
    with (folder / "pairs.jsonl").open("w") as file:
        for index in range(IMAGES - 1):
            for shared in sets:
                pair = {"image_a": images.name(index), "image_b": images.name(index + 1), "shared": shared}
                file.write(json.dumps(pair | {"similarity": 0.5}) + "\n")
    return ListedPairs(images, folder / "pairs.jsonl")


def from_files(folder):
    folder.mkdir()
    for number, picture in enumerate(np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8, 3)).astype(np.uint8)):
        Image.fromarray(picture).save(folder / f"{number:02}.png")
    return ImageFiles(image_folder(folder), size=(8, 8), augmentation=Augmentation())


SOURCES = {
    "label": lambda folder: SameLabel(numbered(augmentation=Augmentation()), np.arange(IMAGES) % 4, "digit"),
    "label of files": lambda folder: SameLabel(from_files(folder / "images"), ["a", "b"] * (IMAGES // 2), "digit"),
    "variants": lambda folder: Variants(numbered(augmentation=Augmentation()), np.arange(IMAGES) // 4, "colour"),
    "attribute": lambda folder: attributes(folder, numbered()),
    "attribute of files": lambda folder: attributes(folder, from_files(folder / "images")),
    "generative": lambda folder: rendered(),
    "sharing": lambda folder: Sharing(rendered(), ["digit", "residual"]),
    "sharing nothing": lambda folder: Sharing(rendered(), []),
    "everything but": lambda folder: EverythingBut(rendered(), "colour"),
    "listed": lambda folder: listed(folder, numbered(augmentation=Augmentation())),
    "listed files": lambda folder: listed(folder, from_files(folder / "images")),
    "unrelated": lambda folder: Unrelated(numbered()),
    "mixed": lambda folder: Mixed([(listed(folder, numbered()), 1), (rendered(), 2), (Unrelated(numbered()), 1)]),
}


@pytest.fixture(params=SOURCES)
def source(request, tmp_path):
    return SOURCES[request.param](tmp_path)


def draw(source, count=16, factors=FACTORS, seed=0):
    return source.draw(count, factors, torch.Generator().manual_seed(seed))


def same(first, second):
    kept = [(getattr(first, field), getattr(second, field)) for field in ("images_a", "images_b", "shared")]
    similar = torch.equal(first.similarity_or(0.9), second.similarity_or(0.9))
    return similar and all(torch.equal(a, b) for a, b in kept)


@pytest.mark.parametrize("count", [4, 5, 33])
def test_a_batch_has_the_shapes_and_types_of_its_contract(source, count):
    pairs = draw(source, count)
    assert len(pairs) == count
    assert pairs.images_a.shape == pairs.images_b.shape == (count, 3, 8, 8)
    assert pairs.images_a.dtype == pairs.images_b.dtype == torch.float32
    assert pairs.shared.shape == (count, 3)
    assert pairs.shared.dtype == torch.bool
    assert pairs.similarity is None or pairs.similarity.shape == (count,)


def test_the_generator_alone_decides_the_batch(source):
    first = draw(source)
    torch.rand(3)  # torch's own generator has no say
    assert same(first, draw(source))
    assert not torch.equal(first.images_a, draw(source, seed=1).images_a)


def test_a_source_keeps_no_state_between_batches(source):
    generator = torch.Generator().manual_seed(0)
    first, second = (source.draw(16, FACTORS, generator) for _ in range(2))
    assert same(first, draw(source))
    assert not torch.equal(first.images_a, second.images_a)


def test_no_image_is_paired_with_itself(source):
    pairs = draw(source, 200)
    assert (pairs.images_a != pairs.images_b).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("factors", [("colour", "residual", "digit"), ("digit", "more", "colour", "residual")])
def test_columns_follow_the_order_of_the_factors(source, factors):
    usual, other = draw(source).shared, draw(source, factors=factors).shared
    for name in FACTORS:
        assert torch.equal(usual[:, FACTORS.index(name)], other[:, factors.index(name)])


def test_concepts_are_names_without_residual(source):
    assert len(set(source.concepts)) == len(source.concepts)
    assert set(source.concepts) <= {"digit", "colour"}


def test_factors_that_miss_a_concept_or_repeat_one_are_refused(source):
    for name in source.concepts:
        with pytest.raises(ValueError, match=f"factors: expected every factor .* no {name}"):
            draw(source, factors=tuple(factor for factor in FACTORS if factor != name))
    with pytest.raises(ValueError, match="one of them twice"):
        draw(source, factors=(*FACTORS, "colour"))


@pytest.mark.parametrize("count", [0, -1])
def test_no_pairs_cannot_be_drawn(source, count):
    with pytest.raises(ValueError, match=f"count: expected at least 1 pair, got {count}"):
        draw(source, count)


@pytest.mark.parametrize("everything_but", [False, True])
def test_a_set_of_factors_and_its_complement(everything_but):
    shares = Shares(frozenset({"digit", "residual"}), everything_but=everything_but)
    assert shares.columns(2, FACTORS).tolist() == [[not everything_but, not everything_but, everything_but]] * 2
    assert shares.concepts == {"digit"}
    assert str(shares) == ("!digit;!residual" if everything_but else "digit;residual")


def test_a_count_is_split_evenly_and_the_rest_at_random():
    generator = torch.Generator().manual_seed(0)
    splits = np.array([split_evenly(7, 4, generator) for _ in range(400)])
    assert (splits.sum(axis=1) == 7).all()
    assert set(splits.ravel()) == {1, 2}
    np.testing.assert_allclose(splits.mean(axis=0), 7 / 4, atol=0.1)


def pair_batch(count, similarity=None, size=8):
    images = torch.zeros(count, 3, size, size)
    return PairBatch(images, images, torch.zeros(count, 2, dtype=torch.bool), similarity)


def test_joined_batches_keep_what_each_pair_says_of_its_similarity():
    joined = join_batches([pair_batch(2), pair_batch(2, torch.tensor([0.5, torch.nan]))])
    torch.testing.assert_close(joined.similarity_or(0.9), torch.tensor([0.9, 0.9, 0.5, 0.9]))
    assert joined.similarity.isnan().tolist() == [True, True, False, True]
    assert join_batches([pair_batch(2), pair_batch(1)]).similarity is None
    assert pair_batch(2).similarity_or(0.25).tolist() == [0.25, 0.25]


def test_images_of_different_shapes_cannot_be_joined():
    with pytest.raises(ValueError, match=r"images: expected the same .* got 3x4x4 and 3x8x8"):
        join_batches([pair_batch(2), pair_batch(2, size=4)])


@pytest.mark.parametrize("name", ["", " digit", "residual", "Residual", "!digit", "digit;colour"])
def test_names_that_no_factor_can_have_are_refused(name):
    with pytest.raises(ValueError, match="concept: expected a name"):
        check_concept(name)
    with pytest.raises(ValueError, match="concept: expected a name"):
        SameLabel(numbered(), [0, 1] * (IMAGES // 2), name)


def test_paths_may_be_texts(tmp_path):
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(np.random.default_rng(0).integers(0, 256, (IMAGES, 20, 20, 3)).astype(np.uint8)):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{number}.png")
    folder = str(tmp_path / "pictures")
    paths = [str(path) for path in image_folder(folder)]
    images = ImageFiles(paths, folder=folder, size=(20, 20))
    attributes(tmp_path, images), listed(tmp_path, images)
    assert set(read_attributes(str(tmp_path / "table.csv")).files) == {f"{number}.png" for number in range(IMAGES)}
    assert ListedPairs(images, str(tmp_path / "pairs.jsonl")).concepts == ("digit", "colour")
    sketches = Sketches(images, paths[0], paths[1], "colour", folder=folder)
    assert [str(path) for path in sketches.paths] == paths[:2]
