"""Pairs that a user lists: read as they are written, balanced over what they share, every mistake by its line."""

import csv
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from iin_training.data.augmentation import Augmentation
from iin_training.data.images import ImageArray, ImageFiles
from iin_training.pairs import MIN_PAIRS, ListedPairs, Shares
from iin_training.pairs.listed import ListedPair, read_pair_list
from iin_training.pairs.user_files import Faults
from PIL import Image
from rich.console import Console

IMAGES = 40
FACTORS = ("residual", "digit", "colour", "style")
HEADER = ("image_a", "image_b", "shared", "similarity")


def numbered(**changed):
    """Images of one level each, which is the number of the image."""
    return ImageArray(np.arange(IMAGES, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2), **changed)


def numbers(images):
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().long().tolist()


def write_csv(path, rows, header=HEADER):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def pairs_of(shared, count=MIN_PAIRS, start=0, similarity=""):
    return [(str(start + number), str(start + number + 1), shared, similarity) for number in range(count)]


def drawn(source, count, seed=0):
    return source.draw(count, FACTORS, torch.Generator().manual_seed(seed))


names = st.sampled_from(["digit", "colour", "residual", "style"])
listings = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(6, 9),
        st.frozensets(names, min_size=1),
        st.booleans(),
        st.one_of(st.none(), st.floats(0, 0.999)),
    ),
    max_size=20,
)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(listing=listings, form=st.sampled_from(["csv", "list", "text"]))
def test_a_list_reads_back_as_it_was_written(tmp_path_factory, listing, form):
    folder = tmp_path_factory.mktemp("list")
    marked = [[("!" if negated else "") + name for name in sorted(shared)] for _, _, shared, negated, _ in listing]
    if form == "csv":
        path = write_csv(
            folder / "pairs.csv",
            [
                (f"{a}.png", f"{b}.png", "; ".join(shared), "" if row[4] is None else repr(row[4]))
                for (a, b, *_), shared, row in zip(listing, marked, listing, strict=True)
            ],
        )
    else:
        path = folder / "pairs.jsonl"
        with path.open("w") as file:
            for (a, b, _, _, similarity), shared in zip(listing, marked, strict=True):
                pair = {"image_a": f"{a}.png", "image_b": f"./{b}.png", "similarity": similarity}
                file.write(json.dumps(pair | {"shared": shared if form == "list" else ";".join(shared)}) + "\n")
    faults = Faults(path)
    found = list(read_pair_list(path, faults))
    faults.raise_any()
    assert found == [
        ListedPair(number, f"{a}.png", f"{b}.png", Shares(shared, everything_but=negated), similarity)
        for number, (a, b, shared, negated, similarity) in enumerate(listing, 2 if form == "csv" else 1)
    ]


def test_pairs_are_those_of_the_list_and_share_what_it_says(tmp_path):
    rows = [*pairs_of("digit;style"), *pairs_of("residual", start=12), *pairs_of("!colour", start=24)]
    source = ListedPairs(numbered(), write_csv(tmp_path / "pairs.csv", rows))
    assert source.concepts == ("digit", "style", "colour")
    pairs = drawn(source, 300)
    expected = {"digit;style": [0, 1, 0, 1], "residual": [1, 0, 0, 0], "!colour": [1, 1, 0, 1]}
    listed = {(int(a), int(b)): expected[shared] for a, b, shared, _ in rows}
    drawn_pairs = list(zip(numbers(pairs.images_a), numbers(pairs.images_b), strict=True))
    assert [listed[pair] for pair in drawn_pairs] == pairs.shared.int().tolist()
    assert set(drawn_pairs) == set(listed)
    assert pairs.similarity is None


def test_images_in_memory_may_be_named_by_plain_numbers(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = ({"image_a": number, "image_b": number + 1, "shared": "digit"} for number in range(MIN_PAIRS))
    path.write_text("\n".join(map(json.dumps, rows)))
    pairs = drawn(ListedPairs(numbered(), path), 20)
    assert [number + 1 for number in numbers(pairs.images_a)] == numbers(pairs.images_b)


def test_sets_of_shared_factors_are_balanced_however_many_pairs_each_has(tmp_path):
    rows = [*pairs_of("digit", 30), *pairs_of("colour", MIN_PAIRS), *pairs_of("!colour", 12)]
    source = ListedPairs(numbered(), write_csv(tmp_path / "pairs.csv", rows))
    for count in (3, 30, 300):
        kinds = [tuple(row) for row in drawn(source, count).shared.int().tolist()]
        assert [kinds.count(kind) for kind in dict.fromkeys(kinds)] == [count // 3] * 3
    single = torch.cat([drawn(source, 1, seed).shared for seed in range(200)])
    for column in ("digit", "colour", "residual"):
        assert int(single[:, FACTORS.index(column)].sum()) > 40


def test_everything_but_means_all_factors_of_the_model(tmp_path):
    source = ListedPairs(numbered(), write_csv(tmp_path / "pairs.csv", pairs_of("!colour;!digit")))
    factors = ("pose", "digit", "residual", "colour")
    shared = source.draw(2, factors, torch.Generator()).shared
    assert shared.tolist() == [[True, False, True, False]] * 2


def test_similarity_belongs_to_its_pair(tmp_path):
    rows = [*pairs_of("digit", similarity="0.25"), *pairs_of("residual", start=12), *pairs_of("colour", 12, 24, 0.0)]
    pairs = drawn(ListedPairs(numbered(), write_csv(tmp_path / "pairs.csv", rows)), 90)
    similarity = pairs.similarity_or(0.9)
    for column, expected in (("digit", 0.25), ("residual", 0.9), ("colour", 0.0)):
        chosen = similarity[pairs.shared[:, FACTORS.index(column)]]
        torch.testing.assert_close(chosen, torch.full((30,), expected))


@pytest.mark.parametrize(("shared", "alike"), [("!colour", True), ("residual", True), ("digit", False)])
def test_pairs_that_share_the_residual_are_distorted_alike(tmp_path, shared, alike):
    # Every image is one square on black: how it lies tells the distortion.
    levels = np.zeros((IMAGES, 16, 16), np.uint8)
    levels[:, 5:11, 5:11] = 255
    images = ImageArray(levels, augmentation=Augmentation())
    pairs = drawn(ListedPairs(images, write_csv(tmp_path / "pairs.csv", pairs_of(shared))), 20)
    assert torch.equal(pairs.images_a, pairs.images_b) == alike
    assert not torch.equal(pairs.images_a[0], pairs.images_a[1])


def test_pairs_with_a_broken_picture_are_left_out(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(IMAGES)]
    for number, path in enumerate(paths):
        Image.new("L", (4, 4), number).save(path)
    paths[3].write_bytes(b"broken")
    images = ImageFiles(paths, size=(4, 4), max_broken=0.1, console=Console(quiet=True))
    rows = [(f"{a}.png", f"{b}.png", shared, "") for a, b, shared, _ in pairs_of("digit", 20)]
    source = ListedPairs(images, write_csv(tmp_path / "pairs.csv", rows))
    pairs = drawn(source, 200)
    used = set(zip(numbers(pairs.images_a), numbers(pairs.images_b), strict=True))
    assert used == {(number, number + 1) for number in range(20)} - {(2, 3), (3, 4)}


def mistakes(suffix, text, tmp_path):
    path = tmp_path / f"pairs.{suffix}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match="pairs") as caught:
        ListedPairs(numbered(), path)
    return str(caught.value)


ROW = "image_a,image_b,shared,similarity\n"
OBJECT = '{"image_a": "1", "image_b": "2", "shared": '
BAD = {
    "empty csv": ("csv", "", ":1: expected a header with image_a, image_b, shared"),
    "no header": ("csv", "1,2,digit\n", ":1: expected a header"),
    "unknown column": ("csv", "image_a,image_b,shared,weight\n", "got image_a, image_b, shared, weight"),
    "semicolons": ("csv", "image_a;image_b;shared\n", ":1: expected a header .* save it with commas between columns"),
    "an open quote": ("csv", ROW + '1,2,"digit,\n3,4,digit,\n', ":2: expected cells of one line"),
    "cells": ("csv", ROW + "1,2,digit\n", ":2: expected 4 cells, as in the header, got 3"),
    "unknown file": ("csv", ROW + "1,99,digit,\n", ":2: expected names of images, such as 0, got 99"),
    "both unknown": ("csv", ROW + "98,99,digit,\n", "got 98 and 99"),
    "no file": ("csv", ROW + "\n,2,digit,\n", ":3: image_a: expected the name of a file, got ''"),
    "itself": ("csv", ROW + "2,./2,digit,\n", ":2: image_a, image_b: expected two different files, got 2 twice"),
    "shares nothing": ("csv", ROW + "1,2,,\n", ":2: shared: expected names of factors, got ''"),
    "gap": ("csv", ROW + "1,2,digit;;colour,\n", ":2: shared: expected a name"),
    "a comma": ("csv", ROW + '1,2,"digit,colour",\n', ":2: shared: expected ; between names, and none with a comma"),
    "half negated": ("csv", ROW + "1,2,digit;!colour,\n", ":2: shared: expected ! before every name or before none"),
    "similarity 1": (
        "csv",
        ROW + "1,2,digit,1\n",
        ":2: similarity: expected a number in [0, 1), got 1.0; give at most",
    ),
    "similarity nearly 1": ("csv", ROW + "1,2,digit,0.99999999999\n", ":2: similarity: expected a number in [0, 1)"),
    "similarity a word": ("csv", ROW + "1,2,digit,high\n", ":2: similarity: expected a number in [0, 1), got 'high'"),
    "similarity nan": ("csv", ROW + "1,2,digit,nan\n", ":2: similarity"),
    "not UTF-8": ("csv", "größe".encode("latin-1"), "; save it as UTF-8, a spreadsheet calls it 'CSV UTF-8'"),
    "nothing listed": ("csv", ROW, "expected a list of pairs, got none"),
    "empty json": ("jsonl", "\n", "expected a list of pairs, got none"),
    "no json": ("jsonl", "\n{1}\n", ":2: expected a JSON object on one line"),
    "no object": ("jsonl", "[1]\n", ":1: expected an object with image_a, image_b, shared"),
    "missing key": ("jsonl", '{"image_a": "1", "shared": "digit"}\n', ":1: expected an object .* got image_a, shared"),
    "unknown key": ("jsonl", OBJECT + '"digit", "extra": 1}\n', "got image_a, image_b, shared, extra"),
    "truth for a file": ("jsonl", '{"image_a": true, "image_b": "2", "shared": "x"}\n', ":1: image_a: expected the"),
    "number for a factor": ("jsonl", OBJECT + "[1]}\n", ":1: shared: expected names of factors, got [1]"),
    "empty list": ("jsonl", OBJECT + "[]}\n", ":1: shared: expected names of factors, got []"),
    "true for similarity": ("jsonl", OBJECT + '"digit", "similarity": true}\n', ":1: similarity: .* got True"),
    "huge similarity": ("jsonl", OBJECT + f'"digit", "similarity": 1{"0" * 400}}}\n', ":1: similarity"),
    "another ending": ("txt", "1 2 digit\n", "expected a list of pairs in a file ending in .csv or .jsonl"),
}


@pytest.mark.parametrize(("suffix", "text", "told"), BAD.values(), ids=BAD)
def test_mistakes_are_told_with_file_and_line(tmp_path, suffix, text, told):
    message = mistakes(suffix, text, tmp_path)
    assert str(tmp_path / f"pairs.{suffix}") in message
    before, _, after = told.partition(" .* ")
    assert before in message
    assert after in message


def test_all_mistakes_are_told_in_order_of_their_lines(tmp_path):
    rows = [row for number in range(8) for row in ("1,2,,\n", f"1,9{number},digit,\n")]
    message = mistakes("csv", ROW + "".join(rows), tmp_path)
    assert [line.split(":")[1] for line in message.splitlines()[:10]] == [str(line) for line in range(2, 12)]
    assert message.endswith("and 6 more mistakes in this file")


def books(folder):
    """Six picture files in a folder whose name has an umlaut."""
    (folder / "bücher").mkdir()
    paths = [folder / f"bücher/{number}.png" for number in range(6)]
    for path in paths:
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    return ImageFiles(paths, folder=folder, size=(4, 4), channels=1)


@pytest.mark.parametrize(
    ("listed", "told"),
    [("bücher\\{}.png", "backslashes for /"), ("bu\u0308cher/{}.png", "the Unicode form of a letter (NFC or NFD)")],
    ids=["backslashes", "Unicode"],
)
def test_names_that_are_only_spelled_differently_are_told_once(tmp_path, listed, told):
    images = books(tmp_path)
    rows = [(listed.format(number), images.name(number + 1), "digit", "") for number in range(5)]
    path = write_csv(tmp_path / "pairs.csv", rows)
    with pytest.raises(ValueError, match=r":2: expected names of images, such as bücher/0\.png, got") as caught:
        ListedPairs(images, path)
    first, *others = str(caught.value).splitlines()
    assert first.endswith(f"; they differ in {told} alone, so write those of the list as the images are named")
    assert [line.rpartition("got ")[2] for line in others] == [listed.format(number) for number in range(1, 5)]


@pytest.mark.parametrize("slips", [1, 5], ids=["one slip", "no name known"])
def test_the_folder_is_asked_for_where_no_name_is_known(tmp_path, slips):
    images = books(tmp_path)
    names = [("elsewhere/" if number < slips else "") + images.name(number) for number in range(5)]
    path = write_csv(tmp_path / "pairs.csv", [(name, images.name(5), "digit", "") for name in names])
    with pytest.raises(ValueError, match=r":2: expected names of images, .* got elsewhere") as caught:
        ListedPairs(images, path)
    assert str(caught.value).count("; give ImageFiles the folder that") == (slips == 5)


def test_one_concept_in_two_spellings_is_refused(tmp_path):
    path = write_csv(tmp_path / "pairs.csv", [*pairs_of("digit"), *pairs_of("Digit")])
    with pytest.raises(ValueError, match=r"pairs\.csv: expected one spelling of a concept, got 'digit' and 'Digit'"):
        ListedPairs(numbered(), path)


def test_a_set_of_too_few_pairs_is_refused(tmp_path):
    repeated = [*pairs_of("digit;colour", MIN_PAIRS - 1), ("1", "0", "colour;digit", "")]  # one of them the other way
    path = write_csv(tmp_path / "pairs.csv", [*pairs_of("digit"), *repeated])
    with pytest.raises(
        ValueError, match=f"expected at least {MIN_PAIRS} .* got {MIN_PAIRS - 1} that share colour;digit"
    ):
        ListedPairs(numbered(), path)


def test_a_missing_list_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"pairs\.csv: expected a readable list of pairs: No such file"):
        ListedPairs(numbered(), tmp_path / "pairs.csv")


def test_a_slip_in_the_name_of_a_factor_is_told_with_its_line_and_the_name_that_was_meant(tmp_path):
    rows = [*pairs_of("digit;colour"), ("30", "31", "digits;colour", ""), *pairs_of("style")]
    with pytest.raises(ValueError, match=rf"pairs\.csv:{2 + MIN_PAIRS}: expected at least .* got 1 that") as caught:
        ListedPairs(numbered(), write_csv(tmp_path / "pairs.csv", rows))
    assert str(caught.value).endswith("share colour;digits; list more, or take these out; or is digits to be digit?")
