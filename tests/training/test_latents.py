"""Encoding every still image once changes nothing but the time; what is not still is encoded at every draw."""

import io

import numpy as np
import pytest
import torch
from iin_training import config
from iin_training.data.augmentation import Augmentation
from iin_training.data.images import ImageArray
from iin_training.models.frozen import FrozenModel
from iin_training.pairs import ListedPairs, Mixed, SameAttribute, SameLabel, Unrelated, read_attributes
from iin_training.pairs.base import join_batches, over
from iin_training.run import Run
from iin_training.stages import latents, transform
from iin_training.stages.latents import PairLatents
from iin_training.stages.transform import score_concepts, train_transform
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

COUNT = 40
FACTORS = ("residual", "digit")
SIZES = {"residual": 4, "digit": 4}
MANY = 10**9  # draws, so that encoding pays


class Counting(nn.Module):
    """An encoder of 8x8 images that counts them; it samples or does not."""

    def __init__(self, *, samples):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 16 if samples else 8)
        self.samples, self.seen = samples, 0

    def forward(self, images):
        self.seen += len(images)
        given = self.layer(images.flatten(1))
        return tuple(given.chunk(2, dim=1)) if self.samples else given


def frozen(*, samples=False):
    model = FrozenModel(Counting(samples=samples), image_shape=(1, 8, 8), value_range=(-1.0, 1.0))
    model.encoder.seen = 0
    return model


def pictures(seed=0, **settings):
    return ImageArray(np.random.default_rng(seed).integers(0, 256, (COUNT, 8, 8), dtype=np.uint8), **settings)


def same_label(images, _folder=None):
    return SameLabel(images, np.arange(COUNT) % 4, "digit")


def same_attribute(images, folder):
    (folder / "table.csv").write_text("file,digit\n" + "".join(f"{row},{row % 4}\n" for row in range(COUNT)))
    return SameAttribute(images, read_attributes(folder / "table.csv"))


def listed(images, folder):
    rows = [f"{row},{row + 1},{shared}\n" for row in range(20) for shared in ("digit", "!digit")]
    (folder / "pairs.csv").write_text("image_a,image_b,shared\n" + "".join(rows))
    return ListedPairs(images, folder / "pairs.csv")


def mixed(images, folder):
    return Mixed([(same_label(images), 2.0), (listed(images, folder), 1.0), (Unrelated(images), 1.0)])


SOURCES = pytest.mark.parametrize(
    "make",
    [same_label, same_attribute, listed, mixed, lambda images, _: Unrelated(images)],
    ids=lambda make: make.__name__,
)


class Hidden:
    """A source that cannot be moved to other images."""

    def __init__(self, source):
        self.concepts, self.draw, self.digest = source.concepts, source.draw, source.digest


def start(directory, said=None):
    console = Console(file=said or io.StringIO(), width=1000)
    return Run(directory, seed=0, checkpoint_every=5, console=console)


def trained(directory, model, pairs):
    how = config.Optimiser(steps=12, batch_size=8, learning_rate=1e-3)
    settings = config.Transform(blocks=2, hidden=8, depth=1, optimiser=how)
    return train_transform(settings, model, SIZES, pairs, start(directory)).state_dict()


@SOURCES
@pytest.mark.parametrize("samples", [False, True], ids=["latents", "samples"])
def test_the_same_is_drawn_and_every_image_is_encoded_once(make, samples, tmp_path):
    model, source = frozen(samples=samples), make(pictures(), tmp_path)
    known, anew = (PairLatents(model, pairs, start(tmp_path), draws=MANY) for pairs in (source, Hidden(source)))
    assert model.encoder.seen == COUNT
    first, second = (torch.Generator().manual_seed(1) for _ in range(2))
    for _ in range(2):
        found, expected = known.draw(24, FACTORS, first), anew.draw(24, FACTORS, second)
        for side in ("images_a", "images_b"):
            draws = [
                model.sample(pairs.posterior(getattr(batch, side)), generator)
                for pairs, batch, generator in ((known, found, first), (anew, expected, second))
            ]
            torch.testing.assert_close(*draws, atol=1e-5, rtol=1e-5)
        assert torch.equal(found.shared, expected.shared)
        assert torch.equal(found.similarity_or(0.5), expected.similarity_or(0.5))
    assert torch.equal(first.get_state(), second.get_state())
    assert model.encoder.seen == COUNT + 4 * 24  # those of the other way


@pytest.mark.parametrize("samples", [False, True], ids=["latents", "samples"])
def test_training_ends_the_same_and_a_next_start_encodes_nothing(samples, tmp_path):
    model, source = frozen(samples=samples), mixed(pictures(), tmp_path)
    found = trained(tmp_path / "once", model, source)
    assert model.encoder.seen == COUNT
    assert found.keys() == (again := trained(tmp_path / "once", model, source)).keys()
    assert all(torch.equal(value, again[name]) for name, value in found.items())
    assert model.encoder.seen == COUNT
    torch.testing.assert_close(found, trained(tmp_path / "anew", model, Hidden(source)), atol=1e-4, rtol=1e-4)
    assert model.encoder.seen > 2048


def test_scores_are_the_same(tmp_path):
    model, source = frozen(), same_label(pictures())
    found, expected = (
        score_concepts(model, pairs, start(tmp_path / name)).reference
        for pairs, name in ((source, "once"), (Hidden(source), "anew"))
    )
    assert found == pytest.approx(expected, abs=1e-6)


class OtherDraw(SameLabel):
    def draw(self, count, factors, generator):
        return super().draw(count, factors, generator)


class OtherLoad(ImageArray):
    def load(self, indices, generator):
        return super().load(indices, generator).flip(3)


BLOCKED = {
    "augmented": lambda: same_label(pictures(augmentation=Augmentation())),
    "load overridden": lambda: same_label(OtherLoad(np.zeros((COUNT, 8, 8), np.uint8))),
    "draw overridden": lambda: OtherDraw(pictures(), np.arange(COUNT) % 4, "digit"),
    "one of several": lambda: Mixed(
        [(same_label(pictures()), 1.0), (Unrelated(pictures(augmentation=Augmentation())), 1)]
    ),
    "no way to other images": lambda: Hidden(same_label(pictures())),
    "no way to those of the second": lambda: Mixed([(same_label(pictures()), 1.0), (Hidden(Unrelated(pictures())), 1)]),
}


@pytest.mark.parametrize("name", BLOCKED)
def test_what_may_differ_from_draw_to_draw_is_encoded_at_every_draw(name, tmp_path):
    model = frozen()
    pairs = PairLatents(model, BLOCKED[name](), start(tmp_path), draws=MANY)
    assert model.encoder.seen == 0
    batch = pairs.draw(6, FACTORS, torch.Generator().manual_seed(0))
    assert torch.equal(pairs.posterior(batch.images_a)[:, 0], model.encode(batch.images_a))


def test_too_many_to_keep_are_encoded_at_every_draw_which_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "MOST_BYTES", 4 * 8 * COUNT)
    model, said = frozen(), io.StringIO()
    PairLatents(model, same_label(pictures()), start(tmp_path, said), draws=MANY)  # exactly what is allowed
    assert model.encoder.seen == COUNT
    two = Mixed([(same_label(pictures(1)), 1.0), (Unrelated(pictures(2)), 1.0)])
    PairLatents(model, two, start(tmp_path, said), draws=MANY)
    assert model.encoder.seen == COUNT
    assert "images are encoded anew for every step" in said.getvalue()


def test_more_images_than_will_be_drawn_are_not_encoded(tmp_path):
    model = frozen()
    PairLatents(model, same_label(pictures()), start(tmp_path), draws=COUNT - 1)
    assert model.encoder.seen == 0


def test_sources_of_one_set_of_images_share_its_latents(tmp_path):
    model, images = frozen(), pictures()
    PairLatents(model, Mixed([(same_label(images), 1.0), (Unrelated(images), 1.0)]), start(tmp_path), draws=MANY)
    assert model.encoder.seen == COUNT


@pytest.mark.parametrize("change", ["model", "images"])
def test_kept_latents_belong_to_one_model_and_one_set_of_images(change, tmp_path):
    PairLatents(frozen(), same_label(pictures()), start(tmp_path), draws=MANY)
    model = frozen()
    if change == "model":
        model.encoder.layer.weight += 0.1
    images = pictures(seed=1 if change == "images" else 0)
    pairs = PairLatents(model, same_label(images), start(tmp_path), draws=MANY)
    drawn = pairs.draw(8, FACTORS, torch.Generator().manual_seed(0)).images_a
    shown = same_label(images).draw(8, FACTORS, torch.Generator().manual_seed(0)).images_a
    torch.testing.assert_close(pairs.posterior(drawn)[:, 0], model.encode(shown))


def test_a_damaged_file_is_made_again(tmp_path):
    model, pairs = frozen(), same_label(pictures())
    PairLatents(model, pairs, start(tmp_path), draws=MANY)
    (path,) = (tmp_path / "latents").iterdir()
    whole = load_file(path)["posterior"].clone()  # what is read is the file itself
    path.write_bytes(path.read_bytes()[:-10])
    PairLatents(model, pairs, start(tmp_path), draws=MANY)
    assert model.encoder.seen == 2 * COUNT
    assert torch.equal(load_file(path)["posterior"], whole)


def test_what_cannot_be_kept_is_used_all_the_same(tmp_path):
    (tmp_path / "latents").write_text("a file where the folder should be")
    model, said = frozen(), io.StringIO()
    pairs = PairLatents(model, same_label(pictures()), start(tmp_path, said), draws=MANY)
    assert len(pairs.posterior(pairs.draw(6, FACTORS, torch.Generator().manual_seed(0)).images_a)) == 6
    assert model.encoder.seen == COUNT
    assert "warning: latents are not kept" in said.getvalue()


def test_a_source_is_not_changed_by_being_moved(tmp_path):
    for make in (same_label, same_attribute, listed, mixed):
        source = make(pictures(), tmp_path)
        before = source.digest()
        assert over(source, lambda images: pictures(seed=3)).digest() != before
        assert source.digest() == before


def rare(images):
    return Mixed([(Unrelated(images), 200.0), (same_label(images), 1.0)])


@pytest.mark.parametrize("hidden", [False, True], ids=["encoded once", "encoded at every draw"])
def test_large_pictures_leave_no_rest_that_a_mixture_refuses(hidden, tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "PAIRS_AT_ONCE", 55 * 64)
    monkeypatch.setattr(latents, "USUAL", 1)
    source = Mixed([(Unrelated(pictures()), 9.0), (same_label(pictures()), 1.0)])
    pairs = PairLatents(frozen(), Hidden(source) if hidden else source, start(tmp_path), draws=MANY)
    a, b, shared = pairs.drawn(500, FACTORS, torch.Generator().manual_seed(0))  # 9 times 55 and 5
    assert (len(a), len(b), len(shared)) == (500, 500, 500)
    assert int(shared.sum()) == 50


def test_a_rare_source_is_measured_as_often_as_it_should_be_in_however_small_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "PAIRS_AT_ONCE", 50 * 64)
    monkeypatch.setattr(latents, "USUAL", 1)
    source = rare(pictures())
    nested = Mixed([(source, 1.0), (Unrelated(pictures()), 1.0)])
    for pairs, share in ((source, 1 / 201), (nested, 1 / 402)):
        known = PairLatents(frozen(), pairs, start(tmp_path), draws=MANY)
        shared = known.drawn(20_000, FACTORS, torch.Generator().manual_seed(0))[2]
        assert int(shared.sum()) == pytest.approx(20_000 * share, rel=0.4)


def test_pictures_so_large_that_one_pair_is_drawn_at_a_time_are_scored_and_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "USUAL", 0)
    monkeypatch.setattr(transform, "PAIRS_FOR_SIZES", 200)
    images = pictures()
    source = Mixed([(same_label(images), 1.0), (SameLabel(images, np.arange(COUNT) % 3, "light"), 1.0)])
    scores = score_concepts(frozen(), source, start(tmp_path)).reference
    assert scores.keys() == {"residual", "digit", "light"}
    assert trained(tmp_path, frozen(), Mixed([(same_label(images), 1.0), (Unrelated(images), 1.0)]))


class OnTheFly:
    """A source that makes its images anew whenever it is asked for them."""

    concepts = ("digit",)

    def __init__(self, sources=None):
        self.sources = sources

    def draw(self, count, factors, generator):
        sources = self.sources or [same_label(pictures(seed)) for seed in range(4)]
        return join_batches(source.draw(count // 4, factors, generator) for source in sources)

    def over(self, change):
        return OnTheFly([same_label(change(pictures(seed))) for seed in range(4)])


def test_images_made_on_the_fly_never_get_the_latents_of_others(tmp_path):
    model = frozen()
    pairs = PairLatents(model, OnTheFly(), start(tmp_path), draws=MANY)
    assert model.encoder.seen == 4 * COUNT
    found, shown = (source.draw(24, FACTORS, torch.Generator().manual_seed(0)) for source in (pairs, OnTheFly()))
    torch.testing.assert_close(pairs.posterior(found.images_a)[:, 0], model.encode(shown.images_a))
