"""What is checked of picture files before anything is trained, and remembered for the next start."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from iin_training import progress
from iin_training.data import checked_files, picture_files
from PIL import Image
from rich.console import Console

from tests.training.numbered_pictures import all_of, files, numbers, write_numbered


def broken(kind, path):
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-30])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no picture":
        path.write_text("hello")
    elif kind == "a folder":
        path.unlink()
        path.mkdir()
    elif kind == "16 bits":
        Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(path)
    else:
        path.write_bytes(deep_colour(tiff="TIFF" in kind))


def deep_colour(*, tiff):
    """8x8 pixels of three channels of 16 bits, which Pillow cannot write."""
    levels = np.full((8, 8, 3), 40_000, ">u2")
    if tiff:
        # Tag, type (3 short, 4 long), how many, value or where; the depths of the channels are behind the table.
        tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 3, 122), (259, 3, 1, 1 << 16), (262, 3, 1, 2 << 16)]
        tags += [(273, 4, 1, 128), (277, 3, 1, 3 << 16), (278, 4, 1, 8), (279, 4, 1, levels.nbytes)]
        table = b"".join(struct.pack(">HHII", *tag) for tag in tags)
        return (
            b"MM\0*" + struct.pack(">IH", 8, len(tags)) + table + struct.pack(">I3H", 0, 16, 16, 16) + levels.tobytes()
        )
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in levels))
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


BROKEN = {
    "missing": "No such file",
    "truncated": "expected a whole picture",
    "empty": "0 bytes of something else",
    "no picture": "5 bytes of something else",
    "a folder": "Is a directory",
    "16 bits": "8 bits a channel",
    "16 bits in colour": "8 bits a channel",
    "16 bits in colour, TIFF": "8 bits a channel",
}


@pytest.mark.parametrize(("kind", "told"), BROKEN.items(), ids=BROKEN)
def test_too_many_broken_files_are_refused_by_name(tmp_path, kind, told):
    paths = write_numbered(tmp_path, 20)
    broken(kind, paths[7])
    with pytest.raises(ValueError, match=rf"1 of 20 files.*\n  .*/7\.png: .*{told}.*\nrepair"):
        files(paths)


@pytest.mark.parametrize("kind", BROKEN)
def test_few_broken_files_are_left_out_with_a_warning(tmp_path, kind):
    paths = write_numbered(tmp_path, 6)
    broken(kind, paths[2])
    said = io.StringIO()
    images = files(paths, max_broken=0.2, console=Console(file=said, width=300))
    assert "warning: 1 of 6 files" in said.getvalue()
    assert str(paths[2]) in said.getvalue()
    assert numbers(all_of(images)) == [0, 1, 3, 4, 5]
    assert images.kept.tolist() == [0, 1, 3, 4, 5]
    assert images.left_out == {"2.png"}
    assert [images.name(index) for index in range(len(images))] == [path.name for path in images.paths]


@pytest.fixture
def decoded(tmp_path, monkeypatch):
    """Numbers of bytes that were decoded; there is an empty cache, and files count as settled at once."""
    monkeypatch.setenv("IIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checked_files, "SETTLED", -1.0)
    seen, decode = [], picture_files.decode_levels

    def counting(data, shape):
        seen.append(len(data))
        return decode(data, shape)

    monkeypatch.setattr(picture_files, "decode_levels", counting)
    return seen


def test_a_next_start_reads_only_what_has_changed_and_finds_the_same(tmp_path, decoded):
    paths = write_numbered(tmp_path / "pictures", 20)
    broken("truncated", paths[3])
    first = files(paths, max_broken=0.1)
    assert len(decoded) == 20
    again = files(paths, max_broken=0.1)
    assert len(decoded) == 21  # the broken one, which may be mended by now
    assert (again.kept.tolist(), again.left_out, again.digest()) == (
        first.kept.tolist(),
        first.left_out,
        first.digest(),
    )
    assert numbers(all_of(again)) == numbers(all_of(first))
    decoded.clear()
    Image.new("RGB", (8, 8), (60, 0, 255)).save(paths[3])
    broken("no picture", paths[5])
    Image.new("RGB", (8, 8), (200, 0, 255)).save(paths[7])
    changed = files(paths, max_broken=0.1)
    assert len(decoded) == 3
    assert changed.left_out == {"5.png"}
    assert changed.sha256 != first.sha256


def test_a_file_that_changed_a_moment_ago_is_not_trusted(tmp_path, decoded, monkeypatch):
    paths = write_numbered(tmp_path / "pictures")
    monkeypatch.setattr(checked_files, "SETTLED", 1000.0)
    for _ in range(2):
        files(paths)
    assert len(decoded) == 12


@pytest.mark.parametrize("fault", ["no folder", "no database", "no home"])
def test_without_a_cache_every_start_checks_every_file(tmp_path, decoded, monkeypatch, fault):
    paths = write_numbered(tmp_path / "pictures")
    if fault == "no folder":
        (tmp_path / "cache").write_text("a file")
    elif fault == "no database":
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache/pictures.sqlite").write_text("something else that is long enough to be read " * 30)
    else:  # as in a container that runs as a user of no name
        for name in ("IIN_CACHE", "XDG_CACHE_HOME", "HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    for _ in range(2):
        assert numbers(all_of(files(paths))) == list(range(6))
    assert len(decoded) == 12


def test_only_so_many_files_are_remembered(tmp_path, decoded, monkeypatch):
    monkeypatch.setattr(checked_files, "MOST", 4)
    paths = write_numbered(tmp_path / "pictures")
    files(paths)
    files(paths[2:])
    assert len(decoded) == 6
    files(paths[:2])
    assert len(decoded) == 8


def test_a_message_names_the_first_broken_files_only(tmp_path):
    with pytest.raises(ValueError, match="12 of 12 files") as caught:
        files([tmp_path / f"{number}.png" for number in range(12)], max_broken=0.99)
    assert str(caught.value).count(".png") == 5
    assert "and 7 more" in str(caught.value)


def test_a_long_check_shows_a_bar_and_a_short_one_does_not(tmp_path, monkeypatch):
    paths = write_numbered(tmp_path)
    for patience, shown in ((1000.0, False), (-1.0, True)):
        monkeypatch.setattr(progress, "SILENT_SECONDS", patience)
        said = io.StringIO()
        files(paths, console=Console(file=said, force_terminal=True, width=100))
        assert ("checking pictures" in said.getvalue()) == shown
        assert bool(said.getvalue()) == shown
