"""A recipe for a frozen model of the user's own."""

import hashlib
import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, TypeAlias, TypeGuard

import numpy as np
import tyro
from iin_bundle.factors import RESIDUAL
from torch import Tensor

from iin_training.config import AnyRun, Bundle, ClassifierRecipe, Optimiser, PictureRecipe, Recipe, Transform
from iin_training.data.digests import images_digest, knows
from iin_training.data.images import ImageFiles, Images, Pictures, printable
from iin_training.models.checks import check_images
from iin_training.models.frozen import FrozenModel
from iin_training.pairs.base import PairSource, check_batch, drawable, fingerprint, is_source
from iin_training.run import Run
from iin_training.subject import EXAMPLES, PREVIEWS, Measure, Subject

__all__ = ["AnyRecipe", "OwnModel"]

OPAQUE = tyro.constructors.PrimitiveConstructorSpec[Any](  # the command line has no options for what is inside a model
    nargs=1,
    metavar="MODEL",
    instance_from_str=lambda given: given[0],
    is_instance=lambda value: True,
    str_from_instance=lambda value: ["as in the recipe"],
)


def _transform() -> Transform:
    """A middling T and a few minutes on two cores for small latents."""
    return Transform(blocks=8, hidden=256, depth=2, optimiser=Optimiser(steps=2000, batch_size=64, learning_rate=1e-3))


@dataclass(frozen=True, kw_only=True)
class OwnModel(AnyRun):
    """Interpret a frozen model of one's own."""

    name: str
    """Name of the recipe, and of the model as callers of the service see it."""
    model: Annotated[FrozenModel, OPAQUE, tyro.conf.Suppress]
    """The frozen model."""
    pairs: Annotated[PairSource, OPAQUE, tyro.conf.Suppress]
    """Pairs that T is trained on: they say which concepts there are. `Unrelated` trains without any."""
    held_out: Annotated[PairSource, OPAQUE, tyro.conf.Suppress]
    """Pairs of pictures that T is not trained on, with the same concepts, for everything that is measured."""
    transform: Transform = field(default_factory=_transform)
    version: str = "1"
    """Version of the model."""
    precision: Literal["float32", "int8"] = "float32"
    """Number format of weights and activations in T's subnets as they are served (docs/QUANTISATION.md)."""
    measure: Annotated[Measure | None, OPAQUE, tyro.conf.Suppress] = None
    """Further figures, for example by a classifier of one's own."""

    def __post_init__(self) -> None:
        """Refuse what no run can do."""
        super().__post_init__()
        if self.name in (".", "..") or not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(
                "name: expected letters, digits, '-', '_' and '.', since a folder and the served model are called so, "
                f"got {self.name!r}; choose another"
            )
        if not isinstance(self.model, FrozenModel):
            raise ValueError(
                f"model: expected a FrozenModel, got {type(self.model).__name__}; give "
                "FrozenModel(encoder, image_shape=..., value_range=...), with a decoder or head where there is one"
            )
        for given, source in (("pairs", self.pairs), ("held_out", self.held_out)):
            if not is_source(source):
                raise ValueError(
                    f"{given}: expected a source of pairs, such as SameLabel(images, labels, 'digit'), got "
                    f"{type(source).__name__}; several are put together by Mixed"
                )
        if self.measure is not None and not callable(self.measure):
            raise ValueError(
                f"measure: expected a function of model, transform and layout, got {type(self.measure).__name__}; "
                "give the function itself, without calling it"
            )
        if self.held_out is self.pairs:
            raise ValueError(
                "held_out: expected pairs of pictures that T is not trained on, got `pairs` itself; "
                "make it of other pictures, as pairs is made"
            )
        if set(self.pairs.concepts) != set(self.held_out.concepts):
            raise ValueError(
                f"held_out: expected pairs of the same concepts as pairs has ({', '.join(self.pairs.concepts)}), "
                f"got {', '.join(self.held_out.concepts) or 'none'}; make both with the same concepts"
            )

    @property
    def bundle(self) -> Bundle:
        """What the exported bundle is called, and its number format."""
        return Bundle(name=self.name, version=self.version, precision=self.precision)

    @property
    def stages(self) -> set[str]:
        """Names of all that is trained before T, as checkpoints bear them."""
        return set()

    def inputs(self) -> dict[str, Any]:
        """What every stage depends on besides its settings: the stage of T knows model and pairs by itself."""
        return {}

    def identity(self) -> dict[str, Any]:
        """What decides the result of the whole run."""
        return {
            "recipe": {"name": self.name, "version": self.version, "seed": self.seed, "precision": self.precision},
            "transform": asdict(self.transform),
            "model": self.model.digest(),
            "pairs": fingerprint(self.pairs),
            "held_out": fingerprint(self.held_out),
            "measure": _told(self.measure),
        }

    def prepare(self, run: Run) -> Subject:
        """Check, before anything else, that model and images are made for each other."""
        factors = (RESIDUAL, *self.held_out.concepts)
        examples = self.held_out.draw(EXAMPLES, factors, run.generator("examples"))
        check_batch(examples, EXAMPLES, factors, "held_out")  # first: `pairs` may re-draw many pictures
        for side in (examples.images_a, examples.images_b):
            check_images(self.model, side, "held_out")
        self._check_range("pairs", self.pairs)
        self._check_range("held_out", self.held_out)
        self._check_held_out(run)
        images = examples.images_a.cpu()  # a source may make them on a GPU
        return Subject(
            model=self.model,
            pairs=self.pairs,
            held_out=self.held_out,
            examples=images,
            captions=("held-out",) * PREVIEWS,
            data_set=f"pairs of {self.name}",
            data_set_sha256=fingerprint(self.pairs),
            measure=self.measure,
        )

    def _check_held_out(self, run: Run) -> None:
        """Refuse held-out pictures that T is trained on; warn of copies. Sources without `drawable` are passed over."""
        trained, measured = list(drawable(self.pairs)), list(drawable(self.held_out))
        seen, held_out = _numbers(trained), _numbers(measured)
        if both := sum(len(seen[digest] & held_out[digest]) for digest in seen.keys() & held_out.keys()):
            raise ValueError(
                f"held_out: expected pairs of pictures that T is not trained on, got {both} pictures that pairs "
                "draws too; split them, and give each its part"
            )
        known = dict(_contents(measured))
        if copies := {content: name for content, name in _contents(trained) if content in known}:
            one, there = next(iter(copies.items()))
            run.console.print(
                f"warning: {len(copies)} of {len(known)} different pictures of held_out are in pairs too, such as "
                f"{known[one]} (there {there}); figures measured on them are too good; remove them from one of the two",
                highlight=False,
            )

    def _check_range(self, field: str, source: PairSource) -> None:
        """Refuse images of another range, which need not show in their values: [0, 1] is within [-1, 1]."""
        low, high = self.model.value_range
        for images, _ in drawable(source):
            if _as_read(images) and not np.allclose(images.value_range, (low, high), rtol=0, atol=1e-3 * (high - low)):
                given = "[{:g}, {:g}]".format(*images.value_range)
                raise ValueError(
                    f"{field}: expected values in [{low:g}, {high:g}], the model's value_range, got images made for "
                    f"{given}; give the images the value_range of the model's own training, and the model the same"
                )


def _numbers(sets: Iterable[tuple[Images, Tensor]]) -> dict[str, set[int]]:
    """Numbers of images by the digest of their set; equal sets count as one."""
    numbers: dict[str, set[int]] = {}
    for images, chosen in sets:
        if (digest := _of_pictures(images)) is not None:
            numbers.setdefault(digest, set()).update(chosen.tolist())
    return numbers


def _contents(sets: Iterable[tuple[Images, Tensor]]) -> Iterator[tuple[bytes, str]]:
    """Digest of each image by itself, and its name for messages; only of images whose digests hold for `load`."""
    for images, chosen in sets:
        if isinstance(images, Pictures) and knows(images, "contents", "load"):
            contents = images.contents
            for number in chosen.tolist():
                name = printable(images.paths[number]) if isinstance(images, ImageFiles) else f"number {number}"
                yield contents[number], name


def _as_read(images: Images) -> TypeGuard[Pictures]:
    """Whether images are loaded as they were read; what a user derives from `Pictures` may change them in `load`."""
    return isinstance(images, Pictures) and type(images).load is Pictures.load


def _of_pictures(images: Images) -> str | None:
    """A digest of the pictures behind `images`, whatever their augmentation; None where they are made at random."""
    if knows(images, "digest", "load") and hasattr(images, "sha256"):
        return str(images.sha256)
    return images_digest(images) if knows(images, "still", "load") and images.still else None  # type: ignore[attr-defined]


def _told(measure: Measure | None) -> str | None:
    """Identifies a measure: its name, and a digest of its source code where that can be read."""
    if measure is None:
        return None
    name: str = getattr(measure, "__qualname__", type(measure).__qualname__)
    try:
        return f"{name} {hashlib.sha256(inspect.getsource(measure).encode()).hexdigest()}"
    except (OSError, TypeError):
        return name  # an instance, or made without a file


AnyRecipe: TypeAlias = Recipe | ClassifierRecipe | PictureRecipe | OwnModel
"""What a run can be made from."""
