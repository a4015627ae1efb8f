"""EfficientNet-Lite0: it is the network that the weights belong to, recognises pictures, can be cut and exported."""

import numpy as np
import pytest
import torch
from iin_training.data.fetch import Package, fetch
from iin_training.graphs import open_runner, write_graph
from iin_training.models.cut import cut
from iin_training.models.effnet import EfficientNetLite0
from PIL import Image

# Every 250th logit of `pictures(side)`, brought to (x255 - 127) / 128, as the code gives it that was published with the
# weights: efficientnet_lite_pytorch 0.1.0, `EfficientNet.from_name("efficientnet-lite0", image_size=side)`, torch 2.13
# on a CPU.
GOLDEN = {
    224: [[-0.3691, -1.12719, -2.41835, 0.18525], [-0.39271, -0.35204, -2.04117, -0.18329]],
    96: [[0.33248, -1.40897, -3.79351, 3.38249], [-0.00747, -0.72284, -0.68737, 0.63078]],
}
EMOJI = Package(
    "npm", "emoji-datasource-google@16.0.0", "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
)
# Pictures of animals, and the number of the animal among ImageNet's classes.
FIRST = {"1f427": 145, "1f577-fe0f": 73, "1f41e": 301}  # penguin, spider, ladybird
AMONG_THREE = {"1f406": 293, "1f9a1": 362, "1f98b": 323, "1f9a9": 130, "1f982": 71}  # cheetah, badger, monarch,
# flamingo, scorpion


@pytest.fixture(scope="module")
def network():
    return EfficientNetLite0()


@pytest.fixture(scope="module")
def small():
    return EfficientNetLite0(side=64)


def pictures(size):
    """Two pictures made of waves and a disc, `(2, 3, size, size)` in [-1, 1]."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    disc = torch.where(x**2 + y**2 < 0.5, 0.8, -0.9)
    waves = torch.stack([torch.sin(7 * x), torch.cos(5 * y), torch.sin(4 * (x + y))])
    return torch.stack([waves, torch.stack([disc, torch.sin(9 * x * y), x])])


@pytest.mark.parametrize("side", GOLDEN)
def test_logits_are_those_of_the_code_that_the_weights_come_with(side):
    logits = EfficientNetLite0(side)(pictures(side))
    torch.testing.assert_close(logits[:, ::250], torch.tensor(GOLDEN[side]), rtol=0, atol=1e-3)


def test_drawn_animals_are_recognised(network):
    names = [*FIRST, *AMONG_THREE]
    folder = fetch(EMOJI, [f"package/img/google/64/{name}.png" for name in names])
    drawn = []
    for name in names:
        picture = Image.open(folder / f"{name}.png").convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        drawn.append(np.array(Image.alpha_composite(white, picture).convert("RGB")))
    images = torch.from_numpy(np.stack(drawn)).movedim(3, 1) / 127.5 - 1
    best = network(images).topk(3).indices.tolist()
    assert [three[0] for three in best[: len(FIRST)]] == list(FIRST.values())
    for name, three in zip(AMONG_THREE, best[len(FIRST) :], strict=True):
        assert AMONG_THREE[name] in three, name


def test_pictures_are_resized_and_grey_is_three_equal_channels(small):
    images = pictures(48)
    enlarged = torch.nn.functional.interpolate(images, size=(64, 64), mode="bilinear")
    torch.testing.assert_close(small(images), small(enlarged))
    grey = images.mean(dim=1, keepdim=True)[:, :, :40]
    torch.testing.assert_close(small(grey), small(grey.repeat(1, 3, 1, 1)))


def test_nothing_can_be_trained_by_accident(small):
    assert not small.training
    assert not any(value.requires_grad for value in small.parameters())
    assert sum(value.numel() for value in small.parameters()) == 4_652_008


def test_stages_have_the_channels_and_sides_that_are_documented(small):
    shapes, maps = [], small.features.stem(small.features.prepare(pictures(64)))
    for stage in small.features.stages:
        maps = stage(maps)
        shapes.append((maps.shape[1], 64 // maps.shape[2]))
    assert shapes == [(16, 2), (24, 4), (40, 8), (80, 16), (112, 16), (192, 32), (320, 32)]


def test_it_is_cut_at_its_features_which_export_to_onnx(small, tmp_path):
    encoder, head = cut(small, "features", image_shape=(3, 32, 32))
    images = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = encoder(images)
    assert latents.shape == (32, 1280)
    assert (latents >= 0).all()
    torch.testing.assert_close(latents, small.features(images))
    torch.testing.assert_close(head(latents), small(images))
    write_graph("encoder", encoder, tmp_path / "encoder.onnx", images)  # checks parity
    (found,) = open_runner(tmp_path / "encoder.onnx")(images[:5].numpy())
    assert np.abs(found - latents[:5].numpy()).max() < 1e-4 * latents.max()


@pytest.mark.parametrize("side", [0, 16, 100, -32])
def test_a_side_that_the_strides_do_not_divide_is_refused(side):
    with pytest.raises(ValueError, match=f"side: expected a multiple of 32 pixels, from 32, got {side}"):
        EfficientNetLite0(side)


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 4, 32, 32), (2, 2, 8, 8)])
def test_what_is_no_batch_of_grey_or_colour_is_refused(small, shape):
    with pytest.raises(ValueError, match=r"images: expected \(N, 1 or 3, H, W\), got "):
        small(torch.zeros(shape))
