"""Images from files and arrays: what is in the file is what is loaded, and nothing broken gets as far as training."""

import hashlib
import io
import os
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from iin_training.data import picture_files
from iin_training.data.augmentation import STILL, Augmentation
from iin_training.data.images import ImageArray, image_folder, labels_of_folders, printable
from PIL import Image, ImageOps
from rich.console import Console

from tests.training.numbered_pictures import all_of, files, levels_of, numbers, write_numbered

ROTATED_90 = 6  # EXIF's number for a camera that was held upright


pictures = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])).flatmap(
    lambda shape: arrays.arrays(np.uint8, shape)
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(levels=pictures, low=st.floats(-5, 5), width=st.floats(0.1, 10))
def test_levels_in_files_and_arrays_become_the_same_values_of_the_range(tmp_path_factory, levels, low, width):
    folder = tmp_path_factory.mktemp("pictures")
    height, wide, channels = levels.shape[1:]
    paths = [folder / f"{number}.png" for number in range(len(levels))]
    for picture, path in zip(levels, paths, strict=True):
        Image.fromarray(picture[..., 0] if channels == 1 else picture).save(path)
    value_range = (low, low + width)
    expected = torch.from_numpy(low + width * levels.transpose(0, 3, 1, 2) / 255.0).float()
    for images in (
        files(paths, size=(height, wide), channels=channels, value_range=value_range),
        ImageArray(levels, value_range=value_range),
        ImageArray(levels[..., 0] if channels == 1 else levels, value_range=value_range),
        ImageArray(torch.from_numpy(levels), value_range=value_range),
    ):
        loaded = all_of(images)
        assert loaded.dtype == torch.float32
        torch.testing.assert_close(loaded, expected, rtol=1e-5, atol=1e-5)
        assert images.shape == picture_files.PictureShape(channels, height, wide)


@pytest.mark.parametrize("index", [[0], [3, 1], [2, 2, 5, 0, 2], []])
def test_images_come_in_the_order_asked_for_from_files_and_arrays(tmp_path, index):
    from_files = files(write_numbered(tmp_path))
    from_array = ImageArray(levels_of(all_of(from_files)))
    chosen = torch.tensor(index, dtype=torch.int64)
    for images in (from_files, from_array):
        loaded = images.load(chosen, None)
        assert loaded.shape == (len(index), 3, 8, 8)
        assert numbers(loaded) == index


@pytest.mark.parametrize(("width", "height"), [(40, 8), (8, 40), (80, 16), (16, 80)])
def test_the_middle_of_a_long_picture_is_kept(tmp_path, width, height):
    levels = np.zeros((height, width, 3), np.uint8)
    side = min(width, height)
    top, left = (height - side) // 2, (width - side) // 2
    levels[top : top + side, left : left + side] = 200
    Image.fromarray(levels).save(tmp_path / "long.png")
    loaded = all_of(files([tmp_path / "long.png"]))
    np.testing.assert_array_equal(levels_of(loaded)[:, 2:-2, 2:-2], 200)
    assert levels_of(loaded).min() > 180  # resized before it is cropped, the rim sees a little of what is beyond


def test_a_size_that_is_not_square_is_filled():
    image = Image.new("RGB", (30, 30), (7, 8, 9))
    file = io.BytesIO()
    image.save(file, "PNG")
    levels = picture_files.decode_levels(file.getvalue(), picture_files.PictureShape(3, 4, 10))
    assert levels.shape == (3, 4, 10)
    assert (levels == np.array([7, 8, 9])[:, None, None]).all()


def test_rotation_in_exif_is_applied_before_cropping(tmp_path):
    picture = Image.new("RGB", (16, 8), (0, 0, 0))
    picture.paste((250, 250, 250), (0, 0, 8, 8))  # left half, which is the upper half when the camera was held upright
    exif = Image.Exif()
    exif[0x0112] = ROTATED_90
    picture.save(tmp_path / "upright.png", exif=exif)
    levels = levels_of(all_of(files([tmp_path / "upright.png"], size=(16, 8))))[0]
    assert (levels[:8] == 250).all()
    assert (levels[8:] == 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_that_cannot_be_written_anew_still_turns_the_picture(tmp_path, orientation):
    levels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    sound = b"MM\0*" + struct.pack(">IH HHIHH I", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    width = struct.pack(">HHI4s", 0x0100, 2, 3, b"ab")  # letters, which should be a number
    odd = b"MM\0*" + struct.pack(">IH", 8, 2) + width + sound[10:]
    for name, exif in (("sound", sound), ("odd", odd)):
        Image.fromarray(levels).save(tmp_path / f"{name}.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "sound.png")))
    for found in levels_of(all_of(files([tmp_path / "sound.png", tmp_path / "odd.png"]))):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparency_lies_on_black(tmp_path, mode):
    picture = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    picture.paste((255, 255, 255, 255), (0, 0, 8, 4))
    ending = {"PA": "tiff"}.get(mode, "png")
    path = tmp_path / f"picture.{ending}"
    if mode == "PA":
        picture.convert("LA").save(path)
    elif mode == "P":
        picture.quantize(4).save(path)
    else:
        picture.convert(mode).save(path)
    levels = levels_of(all_of(files([path])))[0]
    assert (levels[:4] == 255).all()
    assert (levels[4:] == 0).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_every_colour_mode_of_8_bits_is_read(tmp_path, mode):
    path = tmp_path / f"picture.{'tiff' if mode == 'CMYK' else 'png'}"
    Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(path)
    for channels in (1, 3):
        loaded = all_of(files([path], channels=channels))
        assert loaded.shape == (1, channels, 8, 8)
        assert (levels_of(loaded) == 255).all()


def test_a_large_jpeg_decoded_at_a_fraction_looks_the_same(tmp_path):
    rows, columns = np.mgrid[:512, :512] / 511
    smooth = np.stack([rows, columns, (rows + columns) / 2], axis=-1) * 255
    Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "large.jpg", quality=95)
    Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "large.png")
    loaded = all_of(files([tmp_path / "large.jpg", tmp_path / "large.png"], size=(16, 16)))
    assert float((loaded[0] - loaded[1]).abs().max()) < 0.03


def test_files_are_read_when_a_batch_asks_for_them(tmp_path):
    paths = write_numbered(tmp_path)
    images = files(paths)
    paths[3].unlink()
    paths[4].write_bytes(b"something else")
    assert numbers(images.load(torch.tensor([0, 5]), None)) == [0, 5]
    for number in (3, 4):
        with pytest.raises(ValueError, match=rf"{number}\.png: could be read when it was checked, and no longer can"):
            images.load(torch.tensor([0, number]), None)


def test_names_are_relative_to_the_folder_given_or_the_deepest_of_all(tmp_path):
    paths = write_numbered(tmp_path, names=["set/a/1.png", "set/a/2.png"])
    assert files(paths).name(1) == "2.png"
    assert files(paths, folder=tmp_path).name(1) == "set/a/2.png"
    assert files([*paths, *write_numbered(tmp_path / "set/b", 1)]).name(1) == "a/2.png"
    with pytest.raises(ValueError, match="folder: expected the folder that holds every file"):
        files(paths, folder=tmp_path / "other")


def test_the_digest_is_of_names_contents_and_order(tmp_path):
    first, moved = (write_numbered(tmp_path / name) for name in ("here", "there"))
    digest = files(first).sha256
    assert files(moved).sha256 == digest
    assert files(first, size=(4, 4)).sha256 == digest
    different = {digest, files(first[:-1]).sha256, files(first[::-1]).sha256, files(first, folder=tmp_path).sha256}
    Image.new("RGB", (8, 8), (1, 1, 1)).save(first[0])
    assert len(different | {files(first).sha256}) == 5


@pytest.mark.parametrize("kind", ["files", "array"])
def test_the_whole_digest_is_also_of_how_images_are_loaded(tmp_path, kind):
    paths = write_numbered(tmp_path)
    levels = levels_of(all_of(files(paths)))

    def digest(**how):
        return (files(paths, **how) if kind == "files" else ImageArray(levels, **how)).digest()

    ways = [{}, {"value_range": (0.0, 1.0)}, {"augmentation": Augmentation()}, {"augmentation": Augmentation(zoom=0.1)}]
    if kind == "files":
        ways += [{"size": (4, 4)}, {"channels": 1}]
    assert len({digest(**how) for how in ways}) == len(ways)
    assert digest(value_range=(-1, 1)) == digest()


def test_the_digest_of_an_array_is_of_its_contents():
    levels = np.zeros((2, 4, 6), np.uint8)
    changed = levels.copy()
    changed[1, 0, 0] = 1
    digests = {ImageArray(array).sha256 for array in (levels, levels.copy(), changed, levels.reshape(2, 6, 4))}
    assert len(digests) == 3
    assert ImageArray(np.asfortranarray(changed)).sha256 == ImageArray(changed).sha256


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["files", "array"])
@pytest.mark.parametrize(("count", "side"), [(4, 8), (1, 8), (4, 1)])
@pytest.mark.parametrize("augmentation", [Augmentation(), STILL], ids=["distorted", "still"])
def test_images_loaded_are_contiguous_for_encoders_that_flatten(tmp_path, kind, channels, count, side, augmentation):
    levels = np.random.default_rng(0).integers(0, 256, (count, side, side, channels)).astype(np.uint8)
    if kind == "files":
        for number, picture in enumerate(levels):
            Image.fromarray(picture[..., 0] if channels == 1 else picture).save(tmp_path / f"{number}.png")
        images = files(image_folder(tmp_path), size=(side, side), channels=channels, augmentation=augmentation)
    else:
        images = ImageArray(levels, augmentation=augmentation)
    for generator in (None, torch.Generator().manual_seed(0)):
        loaded = all_of(images, generator)
        assert loaded.stride() == (channels * side * side, side * side, side, 1)
        flat = torch.nn.Conv2d(channels, 6, 3, padding=1)(loaded).view(count, -1)
        assert flat.shape == (count, 6 * side * side)


def test_an_array_is_not_copied_and_its_names_are_numbers(tmp_path):
    np.save(tmp_path / "images.npy", np.arange(6, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2) * 10)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    images = ImageArray(mapped)
    assert levels_of(images.load(torch.tensor([5, 2]), None))[:, 0, 0, 0].tolist() == [50, 20]
    assert (len(images), images.name(3)) == (6, "3")
    with pytest.raises(IndexError):
        images.name(6)


@pytest.mark.parametrize("kind", ["files", "array"])
def test_a_generator_decides_the_augmentation_and_none_leaves_images_as_they_are(tmp_path, kind):
    levels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    levels[1] = levels[0]
    how = Augmentation(shift=3.0)
    if kind == "files":
        for number, picture in enumerate(levels):
            Image.fromarray(picture).save(tmp_path / f"{number}.png")
        images = files(image_folder(tmp_path), augmentation=how)
    else:
        images = ImageArray(levels, augmentation=how)
    np.testing.assert_array_equal(levels_of(all_of(images)), levels)
    first, again, other = (all_of(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])  # one picture, two distortions
    assert float(first.min()) >= -1
    assert float(first.max()) <= 1 + 1e-6
    # The n-th image is distorted alike, whichever image it is.
    swapped = images.load(torch.tensor([2, 1]), torch.Generator().manual_seed(0))
    straight = images.load(torch.tensor([3, 0]), torch.Generator().manual_seed(0))
    assert torch.equal(swapped[1], straight[1])


def test_still_images_ignore_the_generator():
    images = ImageArray(np.arange(32, dtype=np.uint8).reshape(2, 4, 4))
    assert torch.equal(all_of(images), all_of(images, torch.Generator()))


def test_a_folder_is_listed_whole_sorted_and_without_what_is_hidden(tmp_path):
    names = ["b/2.PNG", "b/10.jpeg", "a.webp", "b/c/1.gif", "z.tif"]
    write_numbered(tmp_path, names=[*names, ".hidden/1.png", "b/._2.png"])
    (tmp_path / "notes.txt").write_text("no picture")
    found = [path.relative_to(tmp_path).as_posix() for path in image_folder(tmp_path)]
    assert found == sorted(names)
    assert len(files(image_folder(tmp_path))) == len(names)


def test_folders_without_pictures_are_refused(tmp_path):
    with pytest.raises(ValueError, match="found none"):
        image_folder(tmp_path)
    with pytest.raises(ValueError, match="which is none"):
        image_folder(tmp_path / "missing")


def test_the_first_folder_of_a_name_is_its_label(tmp_path):
    paths = write_numbered(tmp_path, names=["cat/1.png", "cat/indoors/2.png", "dog/1.png"])
    assert labels_of_folders(files(paths, folder=tmp_path)) == ["cat", "cat", "dog"]
    with pytest.raises(ValueError, match="at least two classes, got cat only"):
        labels_of_folders(files(paths[:2], folder=tmp_path))
    with pytest.raises(ValueError, match=r"got 1\.png and 0 more"):
        labels_of_folders(files(paths[:2]))


BAD_SETTINGS = {
    "no files": ({"paths": []}, "paths: expected at least one"),
    "size": ({"size": (0, 8)}, "size: expected a height and width of at least 1, got 0x8"),
    "channels": ({"channels": 4}, "channels: expected 1 .grey. or 3"),
    "reversed range": ({"value_range": (1.0, -1.0)}, "value_range: .* got 1 and -1"),
    "infinite range": ({"value_range": (0.0, float("inf"))}, "value_range"),
    "a folder": ({"paths": "pictures"}, r"paths: expected a list of files, got pictures alone; .* image_folder"),
    "one number for a size": ({"size": 28}, r"size: expected height and width, such as \(28, 28\), got 28"),
    "all broken": ({"max_broken": 1.0}, "max_broken: expected a share"),
}


@pytest.mark.parametrize(("changed", "told"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_impossible_settings_of_files_are_refused(tmp_path, changed, told):
    with pytest.raises(ValueError, match=told):
        files(**{"paths": write_numbered(tmp_path)} | changed)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 4, 4), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((0, 4, 4), np.uint8),
        np.zeros((2, 3, 4, 4), np.uint8),  # channels first
    ],
)
def test_arrays_that_are_no_images_are_refused(images):
    with pytest.raises(
        ValueError, match=r"^images: expected uint8 of .*; scale values to 0 to 255, and put channels last"
    ):
        ImageArray(images)


def test_names_that_are_no_utf_8_are_read_and_shown(tmp_path):
    write_numbered(tmp_path, names=["é.png", os.fsdecode(b"caf\xe9.png")])
    (tmp_path / os.fsdecode(b"broken\xff.png")).write_bytes(b"no picture")
    shown = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # as strict as a terminal
    images = files(image_folder(tmp_path), max_broken=0.5, console=Console(file=shown, width=1000))
    shown.flush()
    assert r"broken\udcff.png" in shown.buffer.getvalue().decode()
    assert {images.name(0), images.name(1)} == {"é.png", os.fsdecode(b"caf\xe9.png")}
    digest = hashlib.sha256()
    for path in images.paths:
        digest.update(os.fsencode(path.name) + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    assert images.sha256 == digest.hexdigest()
    assert printable("é.png") == "é.png"
