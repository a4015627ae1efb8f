"""Pairs by attribute, from tables as people have them."""

import csv
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from iin_training.data.images import ImageArray, ImageFiles
from iin_training.pairs import SameAttribute, read_attributes
from iin_training.pairs.attribute_tables import BINS, MANY
from PIL import Image
from rich.console import Console

IMAGES = 60
FACTORS = ("residual", "shape", "size", "age")


class Named(ImageArray):
    """Images of one level each, the number of the image, under names such as 007.png."""

    def __init__(self, count=IMAGES):
        super().__init__(np.arange(count, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2))

    def name(self, index):
        return f"{int(super().name(index)):03}.png"


def numbers(images):
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().long().tolist()


def write_csv(path, rows, header=("file", "shape", "size", "age")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_celeba(path, count=IMAGES, names=("Bald", "Smiling"), told=None):
    lines = [f"{number:03}.png  {1 if number % 5 == 0 else -1}  {-1 if number % 2 else 1}" for number in range(count)]
    path.write_text("\n".join([str(count if told is None else told), " ".join(names), *lines]) + "\n")
    return path


def usual_rows():
    return [(f"{number:03}.png", "round" if number % 4 else "", number % 3, 20 + number) for number in range(IMAGES)]


def drawn(source, count=300, factors=FACTORS, seed=0):
    pairs = source.draw(count, factors, torch.Generator().manual_seed(seed))
    return numbers(pairs.images_a), numbers(pairs.images_b), pairs.shared


cells = st.one_of(
    st.sampled_from(["", "nan", "NaN"]),
    st.sampled_from(["a", "b, c", 'quoted "d"', "ü"]),
    st.integers(-3, 3).map(str),
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=40))
def test_a_table_reads_back_as_the_values_that_were_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    table = read_attributes(
        write_csv(path, [(f"{number}.png", *row) for number, row in enumerate(rows)], ("file", "x", "y"))
    )
    assert table.files == tuple(f"{number}.png" for number in range(len(rows)))
    for position, name in enumerate(("x", "y")):
        column = table.columns[name]
        found = [None if code < 0 else column.values[code] for code in column.codes]
        assert found == [None if row[position].lower() in ("", "nan") else row[position] for row in rows]


def test_equal_numbers_are_one_value_however_they_are_written(tmp_path):
    rows = [(f"{number}.png", text) for number, text in enumerate(["1", "1.0", "1e0", "2.5", "+2.50", ""])]
    column = read_attributes(write_csv(tmp_path / "t.csv", rows, ("file", "size"))).columns["size"]
    assert [None if code < 0 else column.values[code] for code in column.codes] == ["1"] * 3 + ["2.5"] * 2 + [None]


@pytest.mark.parametrize("texts", [["1_12", "11_2"], ["1", "\u0661"]], ids=["underscore", "other digits"])
def test_what_only_looks_like_equal_numbers_is_two_values(tmp_path, texts):
    rows = [(f"{number}.png", text) for number, text in enumerate(texts * 2)]
    column = read_attributes(write_csv(tmp_path / "t.csv", rows, ("file", "take"))).columns["take"]
    assert [column.values[code] for code in column.codes] == texts * 2


def test_many_names_that_look_like_numbers_are_not_binned(tmp_path):
    names = [f"{number // 10:02}_{number % 10:02}" for number in range(120)]
    rows = [(f"{number}.png", name) for number, name in enumerate(names)]
    column = read_attributes(write_csv(tmp_path / "t.csv", rows, ("file", "take"))).columns["take"]
    assert column.values == tuple(names)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=MANY + 1, max_size=300, unique=True))
def test_many_numbers_are_binned_into_quantiles_of_equal_size(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    rows = [(f"{number}.png", repr(value)) for number, value in enumerate(values)]
    column = read_attributes(write_csv(path, rows, ("file", "age"))).columns["age"]
    sizes = np.bincount(column.codes)
    assert len(column.values) == len(sizes) == BINS
    assert sizes.max() - sizes.min() <= 1
    bounds = [[float(end) for end in text.strip("[)").split(", ")] for text in column.values]
    assert all(bounds[code][0] <= value < bounds[code][1] for code, value in zip(column.codes, values, strict=True))
    assert column.values[0].startswith("[-inf, ")
    assert column.values[-1].endswith(", inf)")


def test_many_equal_numbers_make_fewer_bins(tmp_path):
    rows = [(f"{number}.png", 0 if number < 70 else number) for number in range(100)]
    column = read_attributes(write_csv(tmp_path / "t.csv", rows, ("file", "size"))).columns["size"]
    sizes = np.bincount(column.codes)
    assert len(sizes) == len(column.values) <= 4
    assert sizes[0] >= 69
    assert sizes.min() > 0


def test_missing_numbers_are_in_no_bin(tmp_path):
    rows = [(f"{number}.png", "" if number % 3 == 0 else number) for number in range(100)]
    column = read_attributes(write_csv(tmp_path / "t.csv", rows, ("file", "age"))).columns["age"]
    assert (column.codes[::3] == -1).all()
    assert (np.delete(column.codes, np.s_[::3]) >= 0).all()


def test_numbers_that_are_names_are_not_binned(tmp_path):
    rows = [(f"{number}.png", 1000 + number // 2, number) for number in range(100)]
    path = write_csv(tmp_path / "t.csv", rows, ("file", "person", "age"))
    table = read_attributes(path, categorical=["person"])
    assert len(table.columns["person"].values) == 50
    assert len(table.columns["age"].values) == BINS
    with pytest.raises(ValueError, match=r"categorical: expected columns of .* \(person, age\), got who"):
        read_attributes(path, categorical=["who"])


def test_the_list_of_celeba_is_read_as_it_is(tmp_path):
    table = read_attributes(write_celeba(tmp_path / "list_attr_celeba.txt"))
    assert tuple(table.columns) == ("Bald", "Smiling")
    for name, expected in (("Bald", lambda number: number % 5 == 0), ("Smiling", lambda number: number % 2 == 0)):
        column = table.columns[name]
        assert [column.values[code] == "1" for code in column.codes] == [expected(number) for number in range(IMAGES)]
        assert set(column.values) == {"1", "-1"}


def test_a_pair_has_the_same_value_of_the_attribute_that_it_shares(tmp_path):
    rows = usual_rows()
    table = read_attributes(write_csv(tmp_path / "t.csv", rows))
    source = SameAttribute(Named(), table, ["size", "age"])
    assert source.concepts == ("size", "age")
    first, second, shared = drawn(source)
    kinds = [FACTORS[row.index(True)] for row in shared.tolist()]
    assert (shared.sum(dim=1) == 1).all()
    assert (kinds.count("size"), kinds.count("age")) == (150, 150)
    for a, b, kind in zip(first, second, kinds, strict=True):
        column = table.columns[kind]
        assert a != b
        assert column.codes[a] == column.codes[b]


def test_a_rare_value_is_as_frequent_as_a_common_one(tmp_path):
    source = SameAttribute(Named(), read_attributes(write_celeba(tmp_path / "list.txt")), ["Bald"])
    first, _, _ = drawn(source, 2000, ("residual", "Bald"))
    assert np.mean(np.array(first) % 5 == 0) == pytest.approx(0.5, abs=0.05)
    as_is = SameAttribute(Named(), read_attributes(tmp_path / "list.txt"), ["Bald"], balanced=False)
    assert np.mean(np.array(drawn(as_is, 2000, ("residual", "Bald"))[0]) % 5 == 0) == pytest.approx(0.2, abs=0.04)


def test_other_attributes_are_independent_in_a_pair(tmp_path):
    source = SameAttribute(Named(), read_attributes(write_celeba(tmp_path / "list.txt")), ["Bald"])
    first, second, _ = drawn(source, 4000, ("residual", "Bald"))
    smiles = np.histogram2d(np.array(first) % 2, np.array(second) % 2, bins=2)[0] / 4000
    np.testing.assert_allclose(smiles, 0.25, atol=0.05)  # a picture is not its own partner: 12 are bald


def test_fewer_pairs_than_concepts_serve_each_in_turn(tmp_path):
    source = SameAttribute(Named(), read_attributes(write_csv(tmp_path / "t.csv", usual_rows())), ["size", "age"])
    seen = torch.cat([drawn(source, 1, seed=seed)[2] for seed in range(100)])
    assert 30 < int(seen[:, FACTORS.index("age")].sum()) < 70


def test_pictures_without_row_or_value_are_left_out(tmp_path):
    rows = [(f"./{name}", *rest) for name, *rest in usual_rows() if int(name[:3]) >= 10]
    rows = [(name, "square" if number % 2 else shape, *rest) for number, (name, shape, *rest) in enumerate(rows)]
    rows += [("another.png", "round", 1, 2)]
    source = SameAttribute(Named(), read_attributes(write_csv(tmp_path / "t.csv", rows)), ["shape", "size"])
    first, second, shared = drawn(source, 400)
    assert min(first + second) == 10
    shapes = shared[:, FACTORS.index("shape")]
    missing = {int(row[0][2:5]) for row in rows[:-1] if not row[1]}
    assert missing
    assert not missing & {a for a, shape in zip(first + second, shapes.tolist() * 2, strict=True) if shape}
    assert missing <= set(first)  # where it is the size that is shared


def test_blanks_around_quotes_are_no_part_of_a_cell(tmp_path):
    (tmp_path / "t.csv").write_text('"file", "size" \n"a, b.png" , "5, or 6" \n')
    table = read_attributes(tmp_path / "t.csv")
    assert (table.files, table.columns["size"].values) == (("a, b.png",), ("5, or 6",))


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    path = write_csv(tmp_path / "t.csv", usual_rows())
    plain = read_attributes(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    marked = read_attributes(path)
    assert marked.files == plain.files
    assert tuple(marked.columns) == tuple(plain.columns)


BAD_TABLES = {
    "empty": ("", r"t\.csv:1: expected a header"),
    "semicolons": (
        "file;size\n1.png;3\n",
        r"t\.csv:1: expected a header .*by commas, got 'file;size'; save it with commas between columns$",
    ),
    "one column": ("file\n1.png\n", r"t\.csv:1: expected a header with file and at least one concept.* got 'file'$"),
    "header only": ("file,size\n", r"t\.csv:1: expected a row for each picture, got none"),
    "short row": ("file,size\n1.png,1\n\n2.png\n", r"t\.csv:4: expected 2 cells, as in the header, got 1"),
    "long row": ("file,size\n1.png,1,2\n", r"t\.csv:2: expected 2 cells, as in the header, got 3"),
    "twice": ("file,size\na/1.png,1\n./a/1.png,2\n", r"t\.csv:3: .* got a/1\.png, as on line 2"),
    "no file": ("file,size\n,1\n", r"t\.csv:2: expected a file name .* got an empty one"),
    "residual": ("file,residual\n1.png,1\n", r"t\.csv:1: name of a column: expected a name .* got 'residual'"),
    "no name": ("file,size,\n1.png,1,2\n", r"t\.csv:1: name of a column: expected a name .* got ''"),
    "same names": ("file,size,size\n1.png,1,2\n", r"t\.csv:1: expected each name of a column once"),
    "not UTF-8": ("file,größe\n1.png,1\n".encode("latin-1"), r"t\.csv: expected a table .*; save it as UTF-8"),
    "an open quote": (
        'file,size\n1.png,"5\n2.png,6\n',
        r"^\S*t\.csv:2: expected cells of one line .*; close quotes",
    ),
    "an open quote in a long table": (
        'file,size\n1.png,"5\n' + "2.png,6\n" * 20_000,
        r"^\S*t\.csv:2: expected cells of one line .*; close quotes",
    ),
    "celeba cut off": ("3\nBald Smiling\n1.jpg 1 -1\n", r"t\.csv:1: expected 3 rows, as this line says, got 1"),
    "celeba row": ("1\nBald Smiling\n1.jpg 1\n", r"t\.csv:3: expected 3 cells, as in the header, got 2"),
    "celeba without names": ("1\n\n1.jpg 1\n", r"t\.csv:2: expected a header"),
}


@pytest.mark.parametrize(("text", "told"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_broken_tables_are_refused_with_file_and_line(tmp_path, text, told):
    path = tmp_path / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=told):
        read_attributes(path)


def test_all_mistakes_are_told_at_once(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("file,size\n" + "".join(f"{number}.png\n" for number in range(14)))
    with pytest.raises(ValueError, match=r"t\.csv:1: expected a row") as caught:
        read_attributes(path)
    assert str(caught.value).count("expected 2 cells") == 9
    assert "and 5 more mistakes" in str(caught.value)


def test_a_missing_table_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"t\.csv: expected a readable table of attributes: No such file"):
        read_attributes(tmp_path / "t.csv")


BAD_CHOICES = {
    "unknown column": ({"concepts": ["colour"]}, r"concepts: expected .* \(shape, size, age\), each once, got colour"),
    "twice": ({"concepts": ["size", "size"]}, "concepts: expected .* got size, size"),
    "none": ({"concepts": []}, "concepts: expected .* got none"),
    "a file": ({"attributes": "table.csv"}, r"attributes: expected a table .* got str; .* read_attributes\(path\)"),
    "a string": ({"concepts": "size"}, "concepts: expected a list of columns, got the string 'size'"),
    "one value": ({"concepts": ["shape"]}, "shape: expected at least two values .* got 1 values"),
    "other names": (
        {"images": ImageArray(np.zeros((5, 2, 2), np.uint8))},
        r"named as the images are, such as 0, .* 000\.png; the first column names the pictures; give ImageFiles",
    ),
}


@pytest.mark.parametrize(("changed", "told"), BAD_CHOICES.values(), ids=BAD_CHOICES)
def test_attributes_that_make_no_pairs_are_refused(tmp_path, changed, told):
    table = read_attributes(write_csv(tmp_path / "t.csv", usual_rows()))
    with pytest.raises(ValueError, match=told):
        SameAttribute(**{"images": Named(), "attributes": table} | changed)


def test_columns_that_say_the_same_are_refused(tmp_path):
    rows = [(name, ("one", "two", "three")[int(name[:3]) % 3], int(name[:3]) % 3) for name, *_ in usual_rows()]
    table = read_attributes(write_csv(tmp_path / "t.csv", rows, ("file", "name", "shape")))
    with pytest.raises(
        ValueError, match="concepts: expected columns that can be told apart, got name and shape, whose"
    ):
        SameAttribute(Named(), table)
    rows[0] = (rows[0][0], "two", 0)
    table = read_attributes(write_csv(tmp_path / "t.csv", rows, ("file", "name", "shape")))
    assert SameAttribute(Named(), table).concepts == ("name", "shape")


def test_a_value_of_one_picture_is_refused_or_left_out(tmp_path):
    rows = [
        (name, shape, 99 if number == 30 else size, age) for number, (name, shape, size, age) in enumerate(usual_rows())
    ]
    table = read_attributes(write_csv(tmp_path / "t.csv", rows))
    with pytest.raises(ValueError, match="size: expected at least two images of each value, got one of '99'"):
        SameAttribute(Named(), table, ["size"])
    first, second, _ = drawn(SameAttribute(Named(), table, ["size"], drop_single=True))
    assert 30 not in first + second


@pytest.mark.parametrize("cell", ["NA", "N/A", "n/a", "<NA>", "NULL", "null", "None", "NaN", "nan", ""])
def test_a_cell_that_says_missing_leaves_a_column_of_numbers_one(tmp_path, cell):
    rows = [(f"{number}.png", cell if number == 7 else number) for number in range(100)]
    column = read_attributes(write_csv(tmp_path / "t.csv", rows, ("file", "age"))).columns["age"]
    assert len(column.values) == BINS
    assert np.flatnonzero(column.codes < 0).tolist() == [7]


def test_none_may_be_a_value(tmp_path):
    rows = [(f"{number}.png", "none" if number % 2 else "round") for number in range(10)]
    assert read_attributes(write_csv(tmp_path / "t.csv", rows, ("file", "glasses"))).columns["glasses"].values == (
        "round",
        "none",
    )


def test_pictures_without_a_row_are_counted_in_a_warning(tmp_path):
    said = io.StringIO()
    table = read_attributes(write_csv(tmp_path / "t.csv", usual_rows()[:50]))
    SameAttribute(Named(), table, ["size"], console=Console(file=said))
    assert "warning: 10 of 60 images have no row in the table and are left out, such as 050.png" in said.getvalue()
    said = io.StringIO()
    whole = read_attributes(write_csv(tmp_path / "t.csv", usual_rows()))
    SameAttribute(Named(), whole, ["size"], console=Console(file=said))
    assert not said.getvalue()


def test_a_text_among_many_numbers_is_told_with_column_line_and_remedy(tmp_path):
    rows = [(f"{number}.png", "gross" if number in (7, 8) else number, "") for number in range(100)]
    path = write_csv(tmp_path / "t.csv", rows, ("file", "size", "age"))
    with pytest.raises(ValueError, match=r"t\.csv:9: size: expected a number, as in most rows, got 'gross'") as caught:
        read_attributes(path)
    remedy = (
        "mend it or leave it empty, or name the column in read_attributes' `categorical` where its numbers are names"
    )
    assert str(caught.value).endswith(remedy)
    assert len(read_attributes(path, categorical=["size"]).columns["size"].values) == 99


@pytest.mark.parametrize(
    ("many", "texts"), [(MANY - 1, 1), (99, 10)], ids=["few different numbers", "many different texts"]
)
def test_numbers_and_texts_may_be_categories_side_by_side(tmp_path, many, texts):
    values = [*range(many), *(f"other {number}" for number in range(texts))]
    rows = [(f"{number}.png", value) for number, value in enumerate(values)]
    column = read_attributes(write_csv(tmp_path / "t.csv", rows, ("file", "size"))).columns["size"]
    assert column.values == tuple(map(str, values))


class Renamed(Named):
    """The same images under other names."""

    def __init__(self, names):
        super().__init__()
        self._names = names

    def name(self, index):
        return self._names[index]


def told_of_rows(names, images, tmp_path):
    """What the source says where the rows of its table are named `names`."""
    said = io.StringIO()
    rows = [(name, *rest) for name, (_, *rest) in zip(names, usual_rows(), strict=True)]
    SameAttribute(images, read_attributes(write_csv(tmp_path / "t.csv", rows)), ["size"], console=Console(file=said))
    return said.getvalue()


def test_rows_that_name_no_picture_are_counted_in_a_warning(tmp_path):
    names = [f"{number:03}.PNG" if number in (3, 4) else f"{number:03}.png" for number in range(IMAGES)]
    first, second = told_of_rows(names, Named(), tmp_path).splitlines()
    assert first.startswith("warning: 2 of 60 images have no row in the table and are left out, such as 003.png; its")
    assert first.endswith("named such as 003.PNG")
    assert second == (
        "warning: 2 of 60 rows of the table name no image here, such as 003.PNG; names differ in capital letters alone"
    )


def test_rows_of_other_pictures_are_told_where_every_picture_has_its_row(tmp_path):
    said = io.StringIO()
    table = read_attributes(write_csv(tmp_path / "t.csv", [*usual_rows(), ("test/1.png", "round", 1, 2)]))
    SameAttribute(Named(), table, ["size"], console=Console(file=said))
    assert said.getvalue() == "note: 1 of 61 rows of the table name no image here, such as test/1.png\n"


def test_rows_of_pictures_that_were_left_out_as_broken_are_not_told_again(tmp_path):
    paths = [tmp_path / f"{number:03}.png" for number in range(IMAGES)]
    for path in paths:
        Image.new("L", (4, 4)).save(path)
    paths[3].write_bytes(b"broken")
    said, quiet = io.StringIO(), Console(quiet=True)
    images = ImageFiles(paths, size=(4, 4), channels=1, max_broken=0.1, console=quiet)
    table = read_attributes(write_csv(tmp_path / "t.csv", usual_rows()))
    SameAttribute(images, table, ["size"], console=Console(file=said))
    assert not said.getvalue()


@pytest.mark.parametrize(
    ("image", "row", "difference"),
    [
        ("a/{}.png", "a\\{}.png", "backslashes for /"),
        ("\u00e4{}.png", "a\u0308{}.png", r"the Unicode form of a letter \(NFC or NFD\)"),
        ("{}.png", "{}.PNG", "capital letters"),
        ("a/{}.png", "a/{}.jpg", "their endings"),
    ],
    ids=["backslashes", "NFD", "case", "endings"],
)
def test_where_no_name_matches_it_is_told_what_they_differ_in(tmp_path, image, row, difference):
    images, rows = ([name.format(number) for number in range(IMAGES)] for name in (image, row))
    with pytest.raises(ValueError, match=f"; they differ in {difference} alone, so write those of the table as the"):
        told_of_rows(rows, Renamed(images), tmp_path)
