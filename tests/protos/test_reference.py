"""The reference of the API shows every comment whole."""

import re
from itertools import groupby
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "API.md"


def test_every_row_of_a_table_has_as_many_cells_as_its_head():
    for is_table, lines in groupby(PAGE.read_text().splitlines(), lambda line: line.startswith("|")):
        if is_table:
            head, *rows = (re.split(r"(?<!\\)\|", line) for line in lines)
            assert [row for row in rows if len(row) != len(head)] == []
