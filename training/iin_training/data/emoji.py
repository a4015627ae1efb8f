"""Emoji of people and hands in five skin tones: for every person and tone there is a real picture."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iin_training.data.fetch import Package, fetch
from iin_training.data.picture_sets import PictureSet, digest_pictures

__all__ = ["SKIN_TONES", "load_emoji"]

PACKAGE = Package(
    "npm", "emoji-datasource-google@16.0.0", "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
)
LIST, PICTURES = "package/emoji.json", "package/img/google/64/"
# Unicode's modifiers of one person's skin, by the Fitzpatrick scale.
TONES = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")
SKIN_TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
SIDE = 64
# Beginnings of code sequences whose pictures differ in age, gender or direction only.
ALIKE = (
    ("1F468", "1F469", "1F9D1"),  # man, woman, person
    ("1F466", "1F467", "1F9D2"),  # boy, girl, child
    ("1F474", "1F475", "1F9D3"),  # the old ones
    ("1FAC3", "1FAC4", "1F930"),  # pregnant
    ("1F91B", "1F91C"),  # fists to the left and to the right
    ("1F448", "1F449"),  # fingers
    ("1FAF1", "1FAF2"),  # hands
    ("1FAF7", "1FAF8"),  # pushing hands
)
GENDER_OR_DIRECTION = re.compile(r"-200D-(2640|2642|27A1)(?=-|$)|-FE0F")


def load_emoji(*, held_out: int, seed: int) -> PictureSet:
    """309 persons and hands in each of five skin tones, 64x64 RGB; concepts `person` and `skin`; fetched on first use.

    A person is a motif, such as "woman farmer" or "thumbs up sign". Pictures are laid on white, the page that
    they were drawn for: dark outlines vanish on black, wheelchairs and suits on grey. The snowboarder is left out:
    it shows no skin, all its pictures are one.

    Man, woman and person of one role are nearly one picture, and those who face right are mirrored; so a role is
    held out with all of them. In both parts every person is there in all five tones, one after the other.

    Args:
        held_out: how many roles, of 137, to set aside.
        seed: decides which ones.

    """
    folder = fetch(PACKAGE, [LIST, PICTURES])
    listed = json.loads((folder / "emoji.json").read_text(encoding="utf-8"))
    bases = [base for base in listed if tuple(base.get("skin_variations", ())) == TONES]
    pictures = np.stack(
        [[_on_white(folder / "64" / base["skin_variations"][tone]["image"]) for tone in TONES] for base in bases]
    )
    shows_skin = (pictures != pictures[:, :1]).any(axis=(1, 2, 3, 4))
    bases = [base for base, kept in zip(bases, shows_skin, strict=True) if kept]
    images = pictures[shows_skin].reshape(-1, SIDE, SIDE, 3)
    labels = {
        "person": np.repeat(np.arange(len(bases)), len(TONES)),
        "skin": np.tile(np.arange(len(TONES)), len(bases)),
    }
    roles = np.array([_role(base["unified"]) for base in bases])
    different = np.unique(roles)
    if not 0 < held_out < len(different):
        raise ValueError(f"held_out: expected from 1 to {len(different) - 1} roles, got {held_out}")
    chosen = np.random.default_rng(seed).permutation(different)[:held_out]
    aside = np.repeat(np.isin(roles, chosen), len(TONES))
    return PictureSet(
        name=PACKAGE.name,
        sha256=digest_pictures(images, labels),
        images=images[~aside],
        labels={concept: values[~aside] for concept, values in labels.items()},
        held_out_images=images[aside],
        held_out_labels={concept: values[aside] for concept, values in labels.items()},
        values={"person": tuple(_name(base) for base in bases), "skin": SKIN_TONES},
    )


def _on_white(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        layered = picture.convert("RGBA")
    white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, layered).convert("RGB"))


def _role(code: str) -> str:
    """What remains of a Unicode sequence without age, gender and direction."""
    first, _, rest = GENDER_OR_DIRECTION.sub("", code).partition("-")
    return next((alike[0] for alike in ALIKE if first in alike), first) + "-" + rest


def _name(base: Any) -> str:
    # The list calls two bases "MAN IN TUXEDO".
    name: str = "person in tuxedo" if base["unified"] == "1F935" else base["name"].lower()
    return name
