"""Grids and pages hold every picture at its place."""

import pytest
from iin_client.sheet import Section, contact_sheet, draw_grid, draw_page, scaled
from PIL import Image

WHITE = (255, 255, 255)


def picture(colour, size=(28, 28)):
    return Image.new("RGB", size, colour)


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((28, 28), (56, 56)),
        ((32, 32), (64, 64)),
        ((64, 64), (64, 64)),
        ((16, 8), (64, 32)),
        ((256, 128), (112, 56)),
    ],
)
def test_pictures_are_drawn_at_a_size_to_look_at(size, drawn):
    assert scaled(picture("red", size)).size == drawn


def test_small_pictures_are_enlarged_pixel_by_pixel():
    dot = Image.new("L", (28, 28))
    dot.putpixel((1, 2), 255)
    large = scaled(dot)
    white = [(x, y) for x in range(56) for y in range(56) if large.getpixel((x, y)) == WHITE]
    assert white == [(2, 4), (2, 5), (3, 4), (3, 5)]


def test_a_grid_places_rows_and_columns():
    grid = draw_grid([[picture("red"), picture("lime")], [picture("blue"), picture("black")]])
    assert grid.size == (116, 116)
    colours = [grid.getpixel((x, y)) for y in (0, 115) for x in (0, 115)]
    assert colours == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)]
    assert [grid.getpixel((57, 20)), grid.getpixel((20, 58))] == [WHITE, WHITE]


def test_picture_heads_stand_before_their_rows_and_columns():
    grid = draw_grid(
        [[picture("red"), picture("lime")]],
        row_heads=[picture("blue")],
        column_heads=[picture("yellow"), picture("cyan")],
    )
    assert grid.size == (56 + 12 + 116, 56 + 12 + 56)
    assert grid.getpixel((28, 96)) == (0, 0, 255)
    assert grid.getpixel((96, 28)) == (255, 255, 0)
    assert grid.getpixel((156, 28)) == (0, 255, 255)
    assert grid.getpixel((96, 96)) == (255, 0, 0)
    assert grid.getpixel((156, 96)) == (0, 255, 0)
    assert grid.getpixel((28, 28)) == WHITE


def test_labels_are_written_beside_the_cells_and_leave_them_whole():
    plain = draw_grid([[picture("red")], [picture("lime")]])
    labelled = draw_grid([[picture("red")], [picture("lime")]], row_heads=["image", "model"])
    left = labelled.width - plain.width
    assert labelled.crop((left, 0, labelled.width, labelled.height)).tobytes() == plain.tobytes()
    assert labelled.crop((0, 0, left, 56)).getextrema() != ((255, 255),) * 3


@pytest.mark.parametrize(("count", "size"), [(1, (56, 56)), (3, (116, 116)), (4, (116, 116)), (5, (176, 116))])
def test_a_contact_sheet_is_nearly_square(count, size):
    assert contact_sheet([picture("red")] * count).size == size


def test_a_contact_sheet_leaves_the_rest_of_the_last_row_empty():
    sheet = contact_sheet([picture("red"), picture("lime"), picture("blue")])
    assert sheet.getpixel((0, 115)) == (0, 0, 255)
    assert sheet.getpixel((115, 115)) == WHITE


def find(page, colour):
    """Boxes (left, top, right, bottom) that hold all pixels of `colour`."""
    mask = Image.new("1", page.size)
    mask.putdata([pixel == colour for pixel in page.get_flattened_data()])
    return mask.getbbox()


def test_panels_stand_side_by_side_and_wrap_at_the_edge():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    panels = [("label", Image.new("RGB", (600, 50), colour)) for colour in colours]
    page = draw_page("Title", "subtitle", [Section(title="A", caption="b", panels=panels)])
    assert page.width == 1600
    first, second, third = (find(page, colour) for colour in colours)
    assert (second[0], second[1]) == (first[0] + 636, first[1])
    assert third[0] == first[0]
    assert third[1] > first[3]
    assert all((box[2] - box[0], box[3] - box[1]) == (600, 50) for box in (first, second, third))


def test_a_page_widens_for_a_panel_that_does_not_fit():
    panel = Image.new("RGB", (2000, 20), (255, 0, 0))
    page = draw_page("Title", "subtitle", [Section(title="A", caption="b", panels=[("", panel)])])
    left, top, right, bottom = find(page, (255, 0, 0))
    assert (right - left, bottom - top) == (2000, 20)
    assert page.width - right == left


def test_a_long_caption_is_wrapped_onto_the_page():
    def drawn(caption):
        return draw_page("T", "s", [Section(title="A", caption=caption, panels=[])])

    assert drawn("word " * 100).height > drawn("word").height
    assert drawn("word " * 100).width == 1600
