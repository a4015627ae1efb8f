"""Drawing: grids of pictures with heads, and a page of titled sections."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import IO, TypeAlias

from PIL import Image, ImageDraw, ImageFont

__all__ = ["CELL", "Head", "Section", "contact_sheet", "draw_grid", "draw_page", "save_film", "scaled"]

CELL = 56
"""Length in pixels that small pictures are enlarged to, as nearly as whole factors allow."""

Head: TypeAlias = Image.Image | str
"""What stands at the head of a row or column: a picture or a label."""

_Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

_INK, _GREY, _RULE, _PAPER = (32, 32, 36), (104, 104, 112), (208, 208, 214), (255, 255, 255)
_GAP, _HEAD_GAP = 4, 12
_MARGIN, _PANEL_GAP, _SECTION_GAP = 32, 36, 40
_TITLE, _HEADING, _TEXT, _LABEL = 28, 20, 15, 14
_LINE = 1.35
_FRAME_MS = 80


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled part of a page."""

    title: str
    caption: str
    """What to look for, in a sentence or two."""
    panels: Sequence[tuple[str, Image.Image]]
    """Grids with their labels (empty for none), placed from left to right and wrapped."""


def scaled(picture: Image.Image) -> Image.Image:
    """`picture` as RGB at about `CELL` pixels: small ones by a whole factor, so that pixels stay square."""
    length = max(picture.size)
    factor = max(1, round(CELL / length))
    if length <= 2 * CELL:
        return picture.convert("RGB").resize(
            (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
        )
    shrunk = picture.convert("RGB")
    shrunk.thumbnail((2 * CELL, 2 * CELL), Image.Resampling.LANCZOS)
    return shrunk


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
    width, height = cells[0][0].size
    columns = len(cells[0])
    left = max((_head_width(head) for head in row_heads), default=-_HEAD_GAP) + _HEAD_GAP
    top = max((_head_height(head) for head in column_heads), default=-_HEAD_GAP) + _HEAD_GAP
    right = left + columns * (width + _GAP) - _GAP
    bottom = top + len(cells) * (height + _GAP) - _GAP
    grid = Image.new("RGB", (right, bottom), _PAPER)
    draw = ImageDraw.Draw(grid)
    for index, head in enumerate(column_heads):
        x, y = left + index * (width + _GAP) + width / 2, (top - _HEAD_GAP) / 2
        _draw_head(grid, draw, head, x=x, y=y, anchor="mm")
    for index, head in enumerate(row_heads):
        x, y = (left - _HEAD_GAP) / 2, top + index * (height + _GAP) + height / 2
        _draw_head(grid, draw, head, x=x if isinstance(head, Image.Image) else 0, y=y, anchor="lm")
    if any(isinstance(head, Image.Image) for head in column_heads):
        draw.line((left, top - _HEAD_GAP / 2, right, top - _HEAD_GAP / 2), fill=_RULE)
    if any(isinstance(head, Image.Image) for head in row_heads):
        draw.line((left - _HEAD_GAP / 2, top, left - _HEAD_GAP / 2, bottom), fill=_RULE)
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            grid.paste(cell, (left + j * (width + _GAP), top + i * (height + _GAP)))
    return grid


def contact_sheet(pictures: Sequence[Image.Image], *, columns: int | None = None) -> Image.Image:
    """One grid of pictures, nearly square unless `columns` is given."""
    across = columns or math.ceil(math.sqrt(len(pictures)))
    return draw_grid([pictures[start : start + across] for start in range(0, len(pictures), across)])


def save_film(frames: Sequence[Image.Image], file: IO[bytes], format: str) -> tuple[int, int]:
    """Write pictures of one size as a film that repeats, a GIF or WebP, enlarged; gives its size."""
    first, *others = (scaled(frame) for frame in frames)
    first.save(file, format=format, save_all=True, append_images=others, duration=_FRAME_MS, loop=0)
    return first.size


def draw_page(title: str, subtitle: str, sections: Sequence[Section], *, width: int) -> Image.Image:
    """A page `width` pixels wide, wider only for a panel that does not fit, as high as it needs to be."""
    panels = [panel for section in sections for _, panel in section.panels]
    width = max([width, *(panel.width + 2 * _MARGIN for panel in panels)])
    blocks = [_heading(title, subtitle, _TITLE, width)]
    blocks += [_draw_section(section, width) for section in sections]
    height = sum(block.height for block in blocks) + _SECTION_GAP * (len(blocks) - 1) + 2 * _MARGIN
    page = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(page)
    y = _MARGIN
    for index, block in enumerate(blocks):
        if index > 0:
            draw.line((_MARGIN, y - _SECTION_GAP / 2, width - _MARGIN, y - _SECTION_GAP / 2), fill=_RULE)
        page.paste(block, (0, y))
        y += block.height + _SECTION_GAP
    return page


def _draw_section(section: Section, width: int) -> Image.Image:
    heading = _heading(section.title, section.caption, _HEADING, width)
    places, x, y, line_height = [], _MARGIN, heading.height + _HEAD_GAP, 0
    for label, panel in section.panels:
        if x > _MARGIN and x + panel.width > width - _MARGIN:
            x, y, line_height = _MARGIN, y + line_height + _PANEL_GAP, 0
        label_height = round(_TEXT * _LINE) + _GAP if label else 0
        places.append((label, panel, x, y, y + label_height))
        x += panel.width + _PANEL_GAP
        line_height = max(line_height, label_height + panel.height)
    block = Image.new("RGB", (width, y + line_height), _PAPER)
    block.paste(heading, (0, 0))
    draw = ImageDraw.Draw(block)
    for label, panel, x, label_y, panel_y in places:
        draw.text((x, label_y), label, font=_font(_TEXT), fill=_INK)
        block.paste(panel, (x, panel_y))
    return block


def _heading(title: str, text: str, size: int, width: int) -> Image.Image:
    lines = _wrapped(text, _font(_TEXT), width - 2 * _MARGIN)
    title_height, line_height = round(size * _LINE), round(_TEXT * _LINE)
    block = Image.new("RGB", (width, title_height + line_height * len(lines)), _PAPER)
    draw = ImageDraw.Draw(block)
    draw.text((_MARGIN, 0), title, font=_font(size), fill=_INK)
    for index, line in enumerate(lines):
        draw.text((_MARGIN, title_height + index * line_height), line, font=_font(_TEXT), fill=_GREY)
    return block


def _wrapped(text: str, font: _Font, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _head_width(head: Head) -> int:
    return math.ceil(_font(_LABEL).getlength(head)) if isinstance(head, str) else scaled(head).width


def _head_height(head: Head) -> int:
    return round(_LABEL * _LINE) if isinstance(head, str) else scaled(head).height


def _draw_head(grid: Image.Image, draw: ImageDraw.ImageDraw, head: Head, *, x: float, y: float, anchor: str) -> None:
    if isinstance(head, str):
        draw.text((x, y), head, font=_font(_LABEL), fill=_GREY, anchor=anchor)
    else:
        picture = scaled(head)
        grid.paste(picture, (round(x - picture.width / 2), round(y - picture.height / 2)))


@cache
def _font(size: int) -> _Font:
    return ImageFont.load_default(size=size)
