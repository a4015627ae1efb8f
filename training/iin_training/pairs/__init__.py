"""Every way to say what two images share: each source draws pairs, and tells which factors a pair shares."""

from iin_training.pairs.attribute_tables import Attribute, Attributes, read_attributes
from iin_training.pairs.attributes import SameAttribute
from iin_training.pairs.base import MIN_PAIRS, PairBatch, PairSource, Shares
from iin_training.pairs.generative import EverythingBut, GenerativeFactors, Render, Sampler, Sharing
from iin_training.pairs.labels import SameLabel, Unrelated, Variants
from iin_training.pairs.listed import ListedPairs
from iin_training.pairs.mixed import Mixed
from iin_training.pairs.sketches import Sketches

__all__ = [
    "MIN_PAIRS",
    "Attribute",
    "Attributes",
    "EverythingBut",
    "GenerativeFactors",
    "ListedPairs",
    "Mixed",
    "PairBatch",
    "PairSource",
    "Render",
    "SameAttribute",
    "SameLabel",
    "Sampler",
    "Shares",
    "Sharing",
    "Sketches",
    "Unrelated",
    "Variants",
    "read_attributes",
]
