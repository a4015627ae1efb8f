"""A classifier cut in two computes what it did, on its own weights; what cannot be cut is refused."""

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from iin_training.models.cut import cut
from torch import nn
from torch.nn import functional

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
SHAPE = (3, 8, 8)


class Block(nn.Module):
    """A residual block with operations in place."""

    def __init__(self, before, after):
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1)
        self.norm = nn.BatchNorm2d(after)
        self.act = nn.ReLU(inplace=True)
        self.skip = nn.Conv2d(before, after, 1)

    def forward(self, x):
        y = self.act(self.norm(self.conv(x)))
        y += self.skip(x)
        return functional.relu_(y)


class Classifier(nn.Module):
    """Checks its input, asks for its size, and calls functions between its modules."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(Block(3, 4), nn.Identity(), Block(4, 6))
        self.dropout = nn.Dropout(0.5)
        self.hidden = nn.Linear(6, 5)
        self.act = nn.ReLU(inplace=True)
        self.last = nn.Linear(5, 7)

    def forward(self, images):
        if not isinstance(images, torch.Tensor) or images.shape[1] != 3:
            raise TypeError("colour images")
        count = images.shape[0]
        maps = functional.max_pool2d(self.features(images), 2)
        means = functional.adaptive_avg_pool2d(maps, 1).view(count, -1)
        return self.last(self.act(self.hidden(self.dropout(means))))


class Wrong(nn.Module):
    """Runs `forward_of(self, images)`; for what no cut can handle."""

    def __init__(self, forward_of):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.act = nn.ReLU()
        self.unused = nn.Linear(2, 2)
        self.recurrent = nn.LSTM(4, 3, batch_first=True)
        self.last = nn.Linear(4, 2)
        self.forward_of = forward_of

    def forward(self, images):
        return self.forward_of(self, images)


def means(maps):
    return maps.mean(dim=(2, 3))


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    model = Classifier()
    with torch.no_grad():  # statistics of some training
        for _ in range(3):
            model(torch.randn(16, *SHAPE) * 2 + 1)
    return model.eval()


PATHS = ["features.0", "features.1", "features.2", "features", "dropout", "hidden", "act", "last"]


@pytest.mark.parametrize("path", PATHS)
def test_the_second_part_after_the_first_is_the_classifier(classifier, path):
    images = torch.randn(5, *SHAPE)
    seen = []
    handle = classifier.get_submodule(path).register_forward_hook(lambda *call: seen.append(call[2].clone()))
    expected = classifier(images)
    handle.remove()
    first, second = cut(classifier, path, image_shape=SHAPE)
    for rows in (1, 5):
        latents = first(images[:rows])
        torch.testing.assert_close(latents, seen[0][:rows], rtol=0, atol=1e-6)
        torch.testing.assert_close(second(latents), expected[:rows], rtol=0, atol=1e-6)


def test_an_operation_in_place_after_the_cut_leaves_the_latents_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(inplace=True), nn.Linear(5, 2)).eval()
    images = torch.randn(6, *SHAPE)
    first, second = cut(model, "1", image_shape=SHAPE)
    latents = first(images)
    kept = latents.clone()
    torch.testing.assert_close(second(latents), model(images))
    assert torch.equal(latents, kept)
    assert (latents < 0).any()


def test_the_parts_share_the_classifiers_own_weights(classifier):
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    first, second = cut(classifier, "features.1", image_shape=SHAPE)
    own = {id(value) for value in (*classifier.parameters(), *classifier.buffers())}
    parts = {id(value) for part in (first, second) for value in (*part.parameters(), *part.buffers())}
    assert parts <= own
    assert not {id(value) for value in first.parameters()} & {id(value) for value in second.parameters()}
    assert {id(value) for value in classifier.parameters()} <= parts
    after = classifier.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module._forward_hooks for module in classifier.modules())


def test_a_classifier_in_training_mode_is_cut_as_it_is_in_eval_mode(classifier):
    images = torch.randn(4, *SHAPE)
    expected = classifier(images)
    first, second = cut(classifier.train(), "dropout", image_shape=SHAPE)
    torch.testing.assert_close(second(first(images)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("path", ["features.0", "dropout"])
def test_both_parts_export_to_onnx(classifier, path, tmp_path):
    parts = cut(classifier, path, image_shape=SHAPE)
    given = torch.randn(2, *SHAPE)
    sessions = []
    for index, part in enumerate(parts):
        file = tmp_path / f"{index}.onnx"
        batch = {0: torch.export.Dim("batch", min=1)}
        torch.onnx.export(part, (given,), file, dynamic_shapes=(batch,), dynamo=True, verbose=False)
        sessions.append(onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]))
        given = part(given).detach()
    for rows in (1, 3, 32):
        images = torch.randn(rows, *SHAPE)
        found = images.numpy()
        for session in sessions:
            (found,) = session.run(None, {session.get_inputs()[0].name: found})
        np.testing.assert_allclose(found, classifier(images).detach().numpy(), rtol=1e-4, atol=1e-5)


def refusal(model, path, shape=SHAPE):
    with pytest.raises(ValueError, match="expected") as caught:
        cut(model, path, image_shape=shape)
    return str(caught.value)


def test_an_unknown_path_is_answered_with_near_ones(classifier):
    words = refusal(classifier, "feature.2")
    assert "got 'feature.2'; near it: " in words
    assert "features.2" in words.split("near it: ")[1].split(";")[0].split(", ")


def test_the_whole_classifier_is_no_module_inside_it(classifier):
    assert "expected the name of a module inside Classifier, got ''" in refusal(classifier, "")


def test_a_residual_connection_across_the_cut_is_named(classifier):
    words = refusal(classifier, "features.0.norm")
    assert "besides it a value of 'features.0.skip' does" in words
    assert "; cut at 'features.0', or give" in words


def test_the_module_named_to_cut_at_instead_is_one_that_everything_passes_through():
    def around(self, images):  # no module ends where the connection does
        images = self.conv(images)
        return self.last(self.pool(images + self.act(images)).flatten(1))

    inner = Wrong(around)
    inner.pool = nn.AdaptiveAvgPool2d(1)
    for model, path in ((inner, ""), (nn.Sequential(nn.Identity(), inner), "1.")):
        assert f"; cut at '{path}pool', or give" in refusal(model, f"{path}act")
        cut(model, f"{path}pool", image_shape=SHAPE)
    nowhere = Wrong(lambda self, images: means(self.act(images) + images))
    assert "(a residual connection crosses the cut); give encoder and head" in refusal(nowhere, "act")


def test_an_image_that_is_used_again_after_the_cut_is_named():
    model = Wrong(lambda self, images: self.last(means(self.act(self.conv(images)) + images.sum(1, keepdim=True))))
    assert "besides it a value of the classifier's own forward does" in refusal(model, "act")
    model = Wrong(lambda self, images: means(self.conv(images)[:, :3] * images))
    assert "besides it the image itself does" in refusal(model, "conv")


@pytest.mark.parametrize(
    ("forward_of", "path", "words"),
    [
        (lambda self, x: means(self.act(self.act(self.conv(x)))), "act", "exactly once for an image, got 2 calls"),
        (lambda self, x: means(self.conv(x)), "act", "exactly once for an image, got 0 calls; cut at a module that is"),
        (
            lambda self, x: self.recurrent(self.conv(x).flatten(2).mT)[0][:, -1],
            "recurrent",
            "expected 'recurrent' to give one tensor, got tuple",
        ),
        (lambda self, x: (means(self.conv(x)), x), "conv", "expected logits as one tensor of shape [2, classes]"),
        (lambda self, x: self.conv(x), "conv", "got [2, 4, 8, 8]; wrap it in a module that returns the logits alone"),
        (
            lambda self, x: means(self.conv(x)) + 0 * self.last(torch.ones(x.shape[0], 4)).sum(),
            "last",
            "but besides it a value of the classifier's own forward does",
        ),
        (
            lambda self, x: self.last(self.act(self.conv(x).movedim(1, 3).flatten(0, 2))).reshape(x.shape[0], -1),
            "act",
            "expected 'act' to give a row for every image",
        ),
        (
            lambda self, x: means(self.act(self.conv(x)) if float(x.sum()) > 1 else self.act(-self.conv(x))),
            "act",
            "expected a forward that torch.export follows",
        ),
        (
            lambda self, x: means(self.act(self.conv(x))).reshape(len(x), 4),
            "act",
            "x.shape[0] rather than len(x)",
        ),
    ],
    ids=[
        "twice",
        "never",
        "tuple",
        "several logits",
        "maps",
        "beside",
        "merged batch",
        "branches on values",
        "fixed batch",
    ],
)
def test_what_cannot_be_cut_is_refused(forward_of, path, words):
    assert words in refusal(Wrong(forward_of), path)


def test_a_module_under_two_names_is_counted_under_both():
    model = Wrong(lambda self, images: means(self.act(self.again(self.conv(images)))))
    model.again = model.act
    assert "got 2 calls" in refusal(model, "again")


def test_logits_that_do_not_use_the_module_are_refused():
    def forward_of(self, images):
        self.act(images)
        return means(self.conv(images))

    assert "logits that do not use its output" in refusal(Wrong(forward_of), "act")


def test_a_shape_or_a_type_that_the_classifier_does_not_take_is_refused(classifier):
    words = refusal(classifier, "features", shape=(1, 8, 8))
    assert words.startswith("classifier: expected a network that takes torch.float32 of shape [2, 1, 8, 8], got: ")
    assert "; check image_shape" in words
    assert refusal(copy.deepcopy(classifier).double(), "features").endswith("convert it with .float()")


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, torch.jit.script])
def test_a_wrapped_classifier_is_refused_with_what_to_give_instead(wrap):
    words = refusal(wrap(nn.Sequential(nn.Flatten(), nn.Linear(48, 4))), "0", shape=(3, 4, 4))
    assert words.startswith("classifier: expected a module that torch.onnx exports, got ")


def test_a_transformer_is_cut_between_its_layers():
    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 4, stride=4)
            self.positions = nn.Parameter(torch.randn(1, 4, 8))
            self.layers = nn.ModuleList(
                nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True) for _ in range(3)
            )
            self.last = nn.Linear(8, 5)

        def forward(self, images):
            tokens = self.patches(images).flatten(2).mT + self.positions
            for layer in self.layers:
                tokens = layer(tokens)
            return self.last(tokens[:, 0])

    torch.manual_seed(0)
    model, images = Transformer().eval(), torch.randn(3, *SHAPE)
    first, second = cut(model, "layers.1", image_shape=SHAPE)
    assert first(images).shape == (3, 4, 8)
    torch.testing.assert_close(second(first(images)), model(images), rtol=0, atol=1e-5)


def test_parts_move_with_the_tensors_that_the_forward_makes():
    def forward_of(self, images):
        maps = self.act(self.conv(images) + torch.arange(8, device=images.device))
        weights = torch.linspace(0, 1, 4, device=maps.device) * torch.tensor([1.0, 2, 3, 4])
        return self.last(means(maps) * weights)

    model = Wrong(forward_of)
    images = torch.randn(3, *SHAPE)
    expected = model(images)
    parts = cut(model, "act", image_shape=SHAPE)
    torch.testing.assert_close(parts[1](parts[0](images)), expected)
    # Shapes alone, on a device that every machine has; tensors of two devices would not mix there either.
    found = images.to("meta")
    for part in parts:
        found = part.to("meta")(found)
    assert (found.device.type, found.shape) == ("meta", (3, 2))
