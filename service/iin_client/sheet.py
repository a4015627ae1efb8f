"""Drawing: grids of pictures with heads, and a page of titled sections."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont, ImageOps

__all__ = ["Head", "Section", "contact_sheet", "draw_grid", "draw_page", "scaled"]

Head: TypeAlias = Image.Image | str
"""What stands at the head of a row or column: a picture or a label."""

_Place: TypeAlias = tuple[Image.Image, int, int]
"""A picture, and the pixels from the left and from above where it begins."""

_INK, _GREY, _RULE, _PAPER = (32, 32, 36), (104, 104, 112), (208, 208, 214), (255, 255, 255)
_CELL = 56  # pixels that small pictures are enlarged to, as nearly as whole factors allow
_GAP, _HEAD_GAP = 4, 12
_WIDTH, _MARGIN, _PANEL_GAP, _SECTION_GAP = 1600, 32, 36, 40
_TITLE, _HEADING, _TEXT, _LABEL = 28, 20, 15, 14
_LETTER, _LINE = 8, 1.35  # width of a letter of `_TEXT` in pixels, and height of a line in sizes of its letters


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled part of a page."""

    title: str
    caption: str
    """What to look for, in a sentence or two."""
    panels: Sequence[tuple[str, Image.Image]]
    """Grids with their labels (empty for none), placed from left to right and wrapped."""


def scaled(picture: Image.Image) -> Image.Image:
    """`picture` as RGB at about `_CELL` pixels: small ones by a whole factor, so that pixels stay square."""
    picture, length = picture.convert("RGB"), max(picture.size)
    if length > 2 * _CELL:
        picture.thumbnail((2 * _CELL, 2 * _CELL), Image.Resampling.LANCZOS)
        return picture
    return ImageOps.scale(picture, max(1, round(_CELL / length)), Image.Resampling.NEAREST)


def draw_grid(
    rows: Sequence[Sequence[Image.Image]],
    *,
    row_heads: Sequence[Head] = (),
    column_heads: Sequence[Head] = (),
) -> Image.Image:
    """Pictures of one size in rows, of which the last may be shorter; every row and every column has a head, or none.

    Heads that are pictures are set apart by a rule.
    """
    cells = [[scaled(picture) for picture in row] for row in rows]
    sides, tops = [_head(head) for head in row_heads], [_head(head) for head in column_heads]
    width, height = cells[0][0].size
    left = max((side.width + _HEAD_GAP for side in sides), default=0)
    top = max((one.height + _HEAD_GAP for one in tops), default=0)
    xs = [left + index * (width + _GAP) for index in range(len(cells[0]))]
    ys = [top + index * (height + _GAP) for index in range(len(cells))]
    places = [(cell, x, y) for y, row in zip(ys, cells, strict=True) for x, cell in zip(xs, row, strict=False)]
    places += [(side, 0, y + (height - side.height) // 2) for y, side in zip(ys, sides, strict=False)]
    places += [
        (one, x + (width - one.width) // 2, (top - _HEAD_GAP - one.height) // 2)
        for x, one in zip(xs, tops, strict=False)
    ]
    if any(isinstance(head, Image.Image) for head in column_heads):
        places.append((Image.new("RGB", (xs[-1] + width - left, 1), _RULE), left, top - _HEAD_GAP // 2))
    if any(isinstance(head, Image.Image) for head in row_heads):
        places.append((Image.new("RGB", (1, ys[-1] + height - top), _RULE), left - _HEAD_GAP // 2, top))
    return _placed(places)


def contact_sheet(pictures: Sequence[Image.Image], *, columns: int | None = None) -> Image.Image:
    """One grid of pictures, nearly square unless `columns` is given."""
    across = columns or math.ceil(math.sqrt(len(pictures)))
    return draw_grid([pictures[start : start + across] for start in range(0, len(pictures), across)])


def draw_page(title: str, subtitle: str, sections: Sequence[Section]) -> Image.Image:
    """A page `_WIDTH` pixels wide, wider only for what does not fit, as high as it needs to be."""
    inside = max([_WIDTH - 2 * _MARGIN, *(panel.width for section in sections for _, panel in section.panels)])
    blocks = [_heading(title, subtitle, _TITLE, inside)]
    for section in sections:
        blocks += [Image.new("RGB", (inside, 1), _RULE), _section(section, inside)]
    return ImageOps.expand(_stacked(blocks, _SECTION_GAP // 2), _MARGIN, _PAPER)


def _section(section: Section, width: int) -> Image.Image:
    heading = _heading(section.title, section.caption, _HEADING, width)
    places, x, y = [(heading, 0, 0)], 0, heading.height + _HEAD_GAP
    for label, panel in section.panels:
        if x > 0 and x + panel.width > width:
            x, y = 0, max(top + block.height for block, _, top in places) + _PANEL_GAP
        places.append((_stacked([_text(label, _TEXT, _INK), panel], _GAP) if label else panel, x, y))
        x += panel.width + _PANEL_GAP
    return _placed(places)


def _heading(title: str, text: str, size: int, width: int) -> Image.Image:
    lines = textwrap.fill(text, width // _LETTER)
    return _stacked([_text(title, size, _INK), _text(lines, _TEXT, _GREY)], 0)


def _head(head: Head) -> Image.Image:
    return _text(head, _LABEL, _GREY) if isinstance(head, str) else scaled(head)


def _text(text: str, size: int, colour: tuple[int, int, int]) -> Image.Image:
    font, lines, height = ImageFont.load_default(size=size), text.split("\n"), round(size * _LINE)
    picture = Image.new("RGB", (math.ceil(max(map(font.getlength, lines))), height * len(lines)), _PAPER)
    draw = ImageDraw.Draw(picture)
    for index, line in enumerate(lines):
        draw.text((0, index * height), line, font=font, fill=colour)
    return picture


def _stacked(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    tops = accumulate((picture.height + gap for picture in pictures), initial=0)
    return _placed([(picture, 0, top) for picture, top in zip(pictures, tops, strict=False)])


def _placed(places: Sequence[_Place]) -> Image.Image:
    """Pictures at their places, on a sheet that just holds them."""
    width = max(x + picture.width for picture, x, _ in places)
    height = max(y + picture.height for picture, _, y in places)
    sheet = Image.new("RGB", (width, height), _PAPER)
    for picture, x, y in places:
        sheet.paste(picture, (x, y))
    return sheet
