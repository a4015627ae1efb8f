"""Pairs from sketches: what is re-drawn has the sketch's style and its own shape, once, whatever interrupts it."""

import functools
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from iin_bundle.factors import RESIDUAL
from iin_training.cli import main
from iin_training.data.augmentation import Augmentation
from iin_training.data.colour import draw, pad_to, random_colours
from iin_training.data.digits import load_digits
from iin_training.data.images import ImageArray
from iin_training.models.frozen import FrozenModel
from iin_training.own_model import OwnModel
from iin_training.pairs import MIN_PAIRS, Sketches
from iin_training.pairs import sketches as module
from iin_training.pairs.painting import StyleTransfer, load_pictures
from iin_training.run import Run
from iin_training.stages.transform import choose_sizes
from PIL import Image, ImageDraw
from rich.console import Console
from torch import nn

COUNT, SIZE = 40, 32
FACTORS = (RESIDUAL, "digit", "colour")
QUIET = Console(quiet=True)


@functools.cache
def grey_digits():
    return load_digits(None, held_out=500, seed=0).images


def digits(start=0, **how):
    """Real digits in random colours."""
    grey = pad_to(grey_digits()[start::100][:COUNT], SIZE)
    pictures = draw(grey, 0.2 + 0.8 * random_colours(len(grey), torch.Generator().manual_seed(start)))
    return ImageArray(((pictures + 1) * 127.5).byte().permute(0, 2, 3, 1).contiguous().numpy(), **how)


def sketch(path, colour):
    """An S and a stroke, twice as large as the pictures."""
    picture = Image.new("RGB", (64, 64))
    pen = ImageDraw.Draw(picture)
    pen.arc((8, 8, 34, 34), 90, 400, fill=colour, width=6)
    pen.arc((8, 28, 34, 58), -120, 150, fill=colour, width=6)
    pen.line([(44, 8), (54, 12), (46, 56)], fill=colour, width=6)
    picture.save(path)
    return path


@pytest.fixture(scope="module")
def drawn_by_hand(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sketches")
    return sketch(folder / "red.png", (255, 60, 40)), sketch(folder / "blue.png", (50, 120, 255))


@pytest.fixture
def source(tmp_path, drawn_by_hand):
    """Hardly trained: for everything but the looks."""
    return make(tmp_path, drawn_by_hand)


def make(folder, sketches, images=None, concept="colour", **how):
    images = images or digits()
    return Sketches(images, *sketches, concept, folder=folder, console=QUIET, **({"steps": 2} | how))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, drawn_by_hand):
    return make(tmp_path_factory.mktemp("trained"), drawn_by_hand, steps=40)


def test_what_is_redrawn_has_the_style_of_its_sketch_more_than_of_the_other(trained):
    pictures = load_pictures(trained.images, torch.arange(0, COUNT, 2))
    transfer = StyleTransfer(trained.sketches)
    styles = [torch.full((len(pictures),), number) for number in (0, 1)]
    for own, drawn in enumerate(trained.redraw(pictures)):
        before, after, other = (
            transfer(shown, pictures, style)[0].mean().item()
            for shown, style in ((pictures, styles[own]), (drawn, styles[own]), (drawn, styles[1 - own]))
        )
        assert after < 0.7 * before
        assert after < 0.9 * other


def test_what_is_redrawn_shows_the_same_shape_in_both_styles(trained):
    pictures = load_pictures(trained.images, torch.arange(0, COUNT, 2))
    flat = [shown.amax(dim=1).flatten(1) for shown in (pictures, *trained.redraw(pictures))]
    ours, others = [], []
    for drawn in flat[1:]:
        alike = torch.corrcoef(torch.cat([flat[0], drawn]))[: len(pictures), len(pictures) :]
        ours.append(alike.diagonal().mean().item())
        others.append(alike.mean().item())
    assert min(ours) > 0.6
    assert min(ours) > max(others) + 0.2


def test_a_pair_shares_everything_but_the_concept_or_the_concept_alone(source):
    batch = source.draw(41, FACTORS, torch.Generator().manual_seed(0))
    levels = np.fromfile(next(source._folder.rglob("redrawn-*.levels")), np.uint8).reshape(-1, SIZE, SIZE, 3)
    assert len(levels) == 2 * COUNT
    known = {row.tobytes(): number for number, row in enumerate(levels)}
    assert len(known) == 2 * COUNT
    sides = []
    for images in (batch.images_a, batch.images_b):
        rows = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        sides.append(torch.tensor([known[row.tobytes()] for row in rows]))
    (picture_a, style_a), (picture_b, style_b) = ((side // 2, side % 2) for side in sides)
    shared = dict(zip(FACTORS, batch.shared.T, strict=True))
    assert torch.equal(shared["colour"], style_a == style_b)
    assert torch.equal(shared[RESIDUAL], picture_a == picture_b)
    assert torch.equal(shared["digit"], shared[RESIDUAL])
    assert torch.equal(shared["colour"], ~shared[RESIDUAL])
    assert sorted((int(shared["colour"].sum()), int((~shared["colour"]).sum()))) == [20, 21]
    # Which style comes first, and which is shared, is drawn.
    assert all(0 < style.float().mean() < 1 for style in (style_a[shared["colour"]], style_a[~shared["colour"]]))


def test_both_pictures_of_one_are_augmented_alike(tmp_path, drawn_by_hand):
    still, moved = (
        make(tmp_path, drawn_by_hand, digits(augmentation=how)).draw(30, FACTORS, torch.Generator().manual_seed(0))
        for how in (Augmentation(rotation=0, zoom=0, shear=0, shift=0), Augmentation(shift=6.0))
    )
    assert len(list(tmp_path.rglob("redrawn-*.levels"))) == 1  # pictures are re-drawn as they are
    same = still.shared[:, FACTORS.index(RESIDUAL)]
    assert not torch.allclose(still.images_a, moved.images_a, atol=0.1)
    differences = [(batch.images_a - batch.images_b)[same].abs().mean() for batch in (still, moved)]
    assert differences[1] < 1.5 * differences[0]


def test_an_interrupted_redrawing_goes_on_and_ends_the_same(tmp_path, drawn_by_hand, monkeypatch):
    monkeypatch.setattr(module, "DRAWN_AT_ONCE", 7)
    generator = torch.Generator().manual_seed(0)
    whole = make(tmp_path / "whole", drawn_by_hand)
    whole.draw(2, FACTORS, generator)
    paint, calls = module._paint, []

    def stopping(*given):
        calls.append(given)
        if len(calls) == 5:  # in the middle of the third batch
            raise KeyboardInterrupt
        return paint(*given)

    monkeypatch.setattr(module, "_paint", stopping)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "twice", drawn_by_hand).draw(2, FACTORS, generator)
    assert not list((tmp_path / "twice").rglob("redrawn-*.levels"))
    with next((tmp_path / "twice").rglob("*.partial")).open("ab") as partial:
        partial.write(b"half a picture")
    make(tmp_path / "twice", drawn_by_hand).draw(2, FACTORS, generator)
    assert len(calls) == 5 + 2 * 4  # of six batches two were there
    first, second = (next((tmp_path / name).rglob("redrawn-*.levels")).read_bytes() for name in ("whole", "twice"))
    assert first == second


def test_what_older_code_left_half_drawn_is_not_gone_on_with(tmp_path, drawn_by_hand):
    generator = torch.Generator().manual_seed(0)
    make(tmp_path / "whole", drawn_by_hand).draw(2, FACTORS, generator)
    (whole,) = (tmp_path / "whole").rglob("redrawn-*.levels")
    older = tmp_path / "older" / whole.relative_to(tmp_path / "whole").with_suffix(".partial")
    older.parent.mkdir(parents=True)
    older.write_bytes(b"header".ljust(128) + whole.read_bytes())
    make(tmp_path / "older", drawn_by_hand).draw(2, FACTORS, generator)
    assert older.with_suffix(".levels").read_bytes() == whole.read_bytes()


def test_nothing_is_drawn_twice_and_nothing_before_it_is_needed(source, monkeypatch):
    assert not list(source._folder.iterdir())
    source.digest()
    assert not list(source._folder.iterdir())
    first = source.draw(5, FACTORS, torch.Generator().manual_seed(3))
    monkeypatch.setattr(Sketches, "_painter", None)
    again = Sketches(source.images, *source.paths, "colour", folder=source._folder, steps=2, console=QUIET)
    second = again.draw(5, FACTORS, torch.Generator().manual_seed(3))
    assert torch.equal(first.images_b, second.images_b)


def test_other_pictures_are_redrawn_by_the_same_network(source, monkeypatch):
    source.draw(1, FACTORS, torch.Generator())
    held_out = source.on(digits(start=50))
    monkeypatch.setattr(StyleTransfer, "forward", None)  # no step is taken any more
    batch = held_out.draw(4, FACTORS, torch.Generator().manual_seed(0))
    assert batch.images_a.shape == (4, 3, SIZE, SIZE)
    assert len(list(source._folder.iterdir())) == 1
    assert held_out.digest() != source.digest()
    with pytest.raises(ValueError, match=rf"images: expected at least {MIN_PAIRS} of .*height=32.* got 40 of .*=28"):
        source.on(ImageArray(np.zeros((40, 28, 28, 3), np.uint8)))


def test_the_digest_tells_everything_apart_that_alters_pairs(tmp_path, drawn_by_hand, source):
    same = make(tmp_path / "elsewhere", drawn_by_hand)
    assert same.digest() == source.digest()
    red, blue = drawn_by_hand
    green = sketch(tmp_path / "green.png", (0, 200, 0))
    others = [
        make(tmp_path, (blue, red)),
        make(tmp_path, (red, green)),
        make(tmp_path, (red, blue), concept="ink"),
        make(tmp_path, (red, blue), steps=3),
        make(tmp_path, (red, blue), content=0.5),
        make(tmp_path, (red, blue), digits(start=1)),
        make(tmp_path, (red, blue), digits(augmentation=Augmentation())),
        source.on(digits(start=1)),
    ]
    assert len({source.digest(), *(other.digest() for other in others)}) == 9


def test_the_size_of_the_factor_is_estimated_from_sketches_alone(source, tmp_path):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 6))
    model = FrozenModel(encoder, image_shape=(3, SIZE, SIZE), value_range=(-1.0, 1.0))
    run = Run(tmp_path / "run", seed=0, checkpoint_every=1, console=QUIET)
    recipe = OwnModel(name="sketched", model=model, pairs=source, held_out=source.on(digits(start=50)))
    sizes, scores = choose_sizes(recipe.transform, model, recipe.pairs, run)
    assert sum(sizes.values()) == 6
    assert set(scores) == {RESIDUAL, "colour"}


def test_pictures_that_are_redrawn_for_pairs_and_for_held_out_alike_are_found(source, tmp_path):
    model = FrozenModel(nn.Flatten(), image_shape=(3, SIZE, SIZE), value_range=(-1.0, 1.0))
    for images, leak in ((source.images, True), (digits(start=50), False)):
        recipe = OwnModel(name="sketched", model=model, pairs=source, held_out=source.on(images))
        run = Run(tmp_path / "run", seed=0, checkpoint_every=1, console=QUIET)
        with pytest.raises(ValueError, match=r"^held_out: .* got \d+ pictures that") if leak else nullcontext():
            recipe.prepare(run)


def test_grey_pictures_of_another_range_are_redrawn_in_it(tmp_path, drawn_by_hand):
    grey = ImageArray(grey_digits()[:MIN_PAIRS], value_range=(0.0, 1.0))
    batch = make(tmp_path, drawn_by_hand, grey).draw(8, FACTORS, torch.Generator().manual_seed(0))
    assert batch.images_a.shape == (8, 1, 28, 28)
    assert 0 <= batch.images_a.min() < 0.2
    assert 0.8 < batch.images_a.max() <= 1


def test_what_cannot_be_redrawn_is_refused(tmp_path, drawn_by_hand):
    red, blue = drawn_by_hand
    Image.new("RGB", (9, 9), "white").save(tmp_path / "blank.png")
    for given, message in [
        ((red, red), "sketch_b: expected a sketch that differs from .*red.png in colour, got the same picture"),
        ((red, tmp_path / "none.png"), "sketch_b: expected a picture file, but .*none.png is none: .*No such file"),
        ((tmp_path / "blank.png", blue), "sketch_a: expected something drawn, but .*blank.png is blank"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(tmp_path, given)
    with pytest.raises(ValueError, match="content: expected a finite weight of at least 0, got -1"):
        make(tmp_path, (red, blue), content=-1)
    with pytest.raises(ValueError, match="images: expected at least 10 to re-draw, got 3"):
        make(tmp_path, (red, blue), ImageArray(np.zeros((3, 32, 32, 3), np.uint8)))
    with pytest.raises(ValueError, match=r"images: expected at least 18x18 pixels .* got 12x40"):
        make(tmp_path, (red, blue), ImageArray(np.zeros((20, 12, 40, 3), np.uint8)))


RECIPE = """
from pathlib import Path
import numpy as np
from torch import nn
from iin_training.data.images import ImageArray
from iin_training.models.frozen import FrozenModel
from iin_training.own_model import OwnModel
from iin_training.pairs import Mixed, Sketches, Unrelated

HERE = Path(__file__).parent
images = ImageArray(np.load(HERE / "pictures.npy"))
model = FrozenModel(nn.Flatten(), image_shape=(3, 32, 32), value_range=(-1.0, 1.0))


def mine():
    colour = Sketches(images, HERE / "red.png", HERE / "blue.png", "colour", folder=HERE / "kept", steps=2)
    pairs = Mixed([(colour, 2.0), (Unrelated(images), 1.0)])
    return OwnModel(name="mine", model=model, pairs=pairs, held_out=colour.on(images))


def without():
    return OwnModel(name="bare", model=model, pairs=Unrelated(images), held_out=Unrelated(images))
"""


def test_the_command_shows_what_is_redrawn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(RECIPE)
    np.save(tmp_path / "pictures.npy", digits()._images)
    red = sketch(tmp_path / "red.png", (255, 60, 40))
    sketch(tmp_path / "blue.png", (50, 120, 255))
    assert main(["sketches", "mine.py:mine"]) == 0
    assert "build/mine/sketches-colour.png" in "".join(capsys.readouterr().out.split())
    with Image.open("build/mine/sketches-colour.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 20)}
        assert sheet.height > 13 * 96 > sheet.width > 3 * 96
    sketched = ((Sketches(digits(), red, tmp_path / "blue.png", "colour").sketches + 1) * 127.5).round().byte()
    assert {tuple(colour) for colour in sketched[0].flatten(1).T.tolist()} <= colours
    assert main(["sketches", "mine.py:without"]) == 1
    assert "pairs: expected Sketches in the recipe bare, alone or in Mixed, got none" in capsys.readouterr().err
    assert main(["sketches", "digits"]) == 1
