"""Swaps and interpolations ask for what the gallery's captions promise."""

from dataclasses import replace

import numpy as np
import pytest
from iin_client.arguments import Picture
from iin_client.gallery import draw_gallery

from .test_fitting import Fake, model, photo

FACTORS = [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


class Watched(Fake):
    """Finds `FACTORS` in three pictures, and keeps what it is asked for then."""

    def __init__(self):
        super().__init__()
        self.edits, self.paths = [], []

    def interpret(self, files, *, resize):
        return replace(super().interpret(files, resize=resize), factors=np.array(FACTORS, np.float32))

    def edit(self, targets, edit):
        self.edits.append((targets.array.tolist(), edit.factor, edit.source.array.tolist(), edit.strength))
        return super().edit(targets, edit)

    def traverse(self, start, path, frames):
        self.paths.append((start.array.tolist(), path.destination.array.tolist(), path.factors, frames))
        return super().traverse(start, path, frames)


@pytest.fixture
def asked():
    client = Watched()
    draw_gallery(client, model(), [Picture("a.png", photo(12, 8))] * 3, resize=False)
    return client


def test_reconstructions_are_of_all_pictures_and_change_nothing(asked):
    targets, _, _, strength = asked.edits[0]
    assert (targets, strength) == (FACTORS, 0)


def test_a_row_of_a_swap_grid_is_a_source_and_a_column_a_target(asked):
    assert asked.edits[1:] == [(FACTORS, "colour", source, 1.0) for source in FACTORS]


def test_an_interpolation_leads_from_the_first_picture_to_the_last_in_eighths(asked):
    assert asked.paths == [(FACTORS[0], FACTORS[-1], ["colour"], 9)]
