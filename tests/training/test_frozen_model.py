"""What training sees of a frozen model is the same whether its parts are torch modules or ONNX files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from iin_training.models.cut import cut
from iin_training.models.frozen import FrozenModel
from iin_training.models.onnx_model import OnnxModule
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
SHAPE = (1, 8, 8)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


class Sampling(nn.Module):
    """Means and log-variances of latents (2, 4, 4)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 4, stride=2, padding=1)

    def forward(self, images):
        mean, log_variance = self.conv(images).chunk(2, dim=1)
        return mean, log_variance - 3


def deterministic():
    return nn.Sequential(nn.Conv2d(1, 2, 4, stride=2, padding=1), nn.BatchNorm2d(2), nn.Tanh())


def decoder():
    return nn.Sequential(nn.ConvTranspose2d(2, 1, 4, stride=2, padding=1), nn.Sigmoid())


def head():
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 5))


def frozen(encoder=None, **parts):
    settings = {"image_shape": SHAPE, "value_range": (0.0, 1.0)} | parts
    return FrozenModel(deterministic() if encoder is None else encoder, **settings)


def as_onnx(network, example, path):
    torch.onnx.export(
        network.eval(),
        (example,),
        path,
        dynamic_shapes=({0: torch.export.Dim("rows", min=1)},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    return OnnxModule(path)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_parts_are_frozen_in_place():
    parts = {"encoder": deterministic(), "decoder": decoder(), "head": head()}
    weights = {id(value) for part in parts.values() for value in part.parameters()}
    before = {role: {name: v.clone() for name, v in part.state_dict().items()} for role, part in parts.items()}
    model = frozen(**parts)
    assert {id(value) for value in model.parameters()} == weights
    assert not any(value.requires_grad for value in model.parameters())
    assert not any(module.training for module in model.train().modules())
    for role, part in parts.items():
        assert all(torch.equal(value, before[role][name]) for name, value in part.state_dict().items())


@pytest.mark.parametrize("device", DEVICES)
def test_a_model_maps_images_to_latents_and_back(device):
    model = frozen(decoder=decoder(), head=head()).to(device)
    images = torch.rand(3, *SHAPE, device=device)
    latents = model.encode(images)
    assert (model.latent_shape, model.size, model.has_decoder) == ((2, 4, 4), 32, True)
    assert latents.shape == (3, 2, 4, 4)
    assert model.decode(latents).shape == images.shape
    assert model.device.type == model.decode(latents).device.type == device
    torch.testing.assert_close(model.head(latents).sum(dim=1).cpu(), torch.ones(3))
    assert not latents.requires_grad


def test_latents_of_a_deterministic_encoder_are_drawn_as_they_are():
    model, images = frozen(), torch.rand(3, *SHAPE)
    assert not model.samples
    assert torch.equal(model.draw(images, torch.Generator().manual_seed(1)), model.encode(images))


@pytest.mark.parametrize("device", DEVICES)
def test_latents_of_a_sampling_encoder_are_drawn_from_its_distribution(device):
    encoder = Sampling()
    model, image = frozen(encoder).to(device), torch.rand(1, *SHAPE, device=device)
    assert model.samples
    mean, log_variance = encoder(image)
    assert torch.equal(model.encode(image), mean)
    drawn = model.draw(image.expand(20_000, *SHAPE), torch.Generator().manual_seed(1))
    std = (0.5 * log_variance).exp()
    torch.testing.assert_close(drawn.mean(dim=0, keepdim=True), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(drawn.std(dim=0, keepdim=True), std, rtol=0.03, atol=0)
    first, again, other = (model.draw(image, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("encoder", [deterministic, Sampling], ids=["deterministic", "sampling"])
def test_networks_for_export_take_and_give_one_tensor(encoder):
    model, images = frozen(encoder(), decoder=decoder(), head=head()), torch.rand(2, *SHAPE)
    networks = model.networks()
    assert list(networks) == ["encoder", "decoder", "head"]
    latents = networks["encoder"](images)
    assert torch.equal(latents, model.encode(images))
    assert torch.equal(networks["decoder"](latents), model.decode(latents))
    assert torch.equal(networks["head"](latents), model.head(latents))
    assert list(frozen().networks()) == ["encoder"]


def test_onnx_files_do_as_torch_modules_do(tmp_path):
    parts = {"encoder": deterministic().eval(), "decoder": decoder(), "head": head().eval()}
    images, latents = torch.rand(2, *SHAPE), torch.rand(2, 2, 4, 4)
    examples = {"encoder": images, "decoder": latents, "head": latents}
    files = {role: as_onnx(part, examples[role], tmp_path / f"{role}.onnx") for role, part in parts.items()}
    ours, theirs = frozen(**parts), frozen(**files)
    assert theirs.latent_shape == ours.latent_shape
    assert theirs.device.type == "cpu"
    torch.testing.assert_close(theirs.encode(images), ours.encode(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theirs.decode(latents), ours.decode(latents), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theirs.head(latents), ours.head(latents), rtol=1e-4, atol=1e-5)
    mixed = frozen(parts["encoder"], head=files["head"])
    torch.testing.assert_close(mixed.head(latents), ours.head(latents), rtol=1e-4, atol=1e-5)


def test_a_head_that_gives_probabilities_is_left_as_it_is():
    latents = torch.rand(2, 2, 4, 4)
    given = nn.Sequential(head(), nn.Softmax(dim=1)).eval()
    assert torch.equal(frozen(head=given, head_gives="probabilities").head(latents), given(latents))


def test_the_digest_tells_models_apart_and_not_their_devices_or_runs(tmp_path):
    def make(encoder=deterministic):
        torch.manual_seed(0)
        return frozen(encoder(), decoder=decoder())

    first = make().digest()
    assert make().digest() == first
    changed = make()
    changed.decoder[0].bias += 1e-4
    sharper = make(lambda: nn.Sequential(*list(deterministic())[:2], nn.Sigmoid()))
    file = frozen(as_onnx(deterministic(), torch.rand(2, *SHAPE), tmp_path / "encoder.onnx"), decoder=decoder())
    assert len({first, changed.digest(), sharper.digest(), frozen().digest(), file.digest()}) == 5


def test_the_digest_tells_cuts_of_one_classifier_apart():
    classifier = nn.Sequential(deterministic(), nn.ReLU(), head())
    digests = set()
    for path in ("0", "1"):
        encoder, rest = cut(classifier, path, image_shape=SHAPE)
        model = frozen(encoder, head=rest)
        again, _ = cut(classifier, path, image_shape=SHAPE)
        assert frozen(again, head=rest).digest() == model.digest()
        digests.add(model.digest())
    assert len(digests) == 2


class Plain(nn.Module):
    """Latents that depend on what no `state_dict` has."""

    def __init__(self, how=2.0):
        super().__init__()
        self.how = how
        self.register_buffer("hidden", torch.ones(4), persistent=False)
        self.calls, self.last = 0, None

    def forward(self, images):
        self.calls, self.last = self.calls + 1, images
        return images.flatten(1)[:, :4] * self.hidden


def linear(weight):
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(weight)
    return layer


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (2.0, 3.0),
        (1, True),
        ("mean", "max"),
        (None, 0),
        ((1, 2), (2, 1)),
        ([[1], [2]], [[1, 2], []]),
        ({"a": 1.0}, {"a": 2.0}),
        (torch.ones(2), torch.zeros(2)),
        ({"a": [torch.ones(2)]}, {"a": [torch.ones(3)]}),
        (np.ones(2), np.zeros(2)),
        (np.float32(1), np.float32(2)),
        (torch.relu, torch.tanh),
        ([linear(1.0)], [linear(2.0)]),
    ],
    ids=[
        "float",
        "bool",
        "text",
        "none",
        "tuple",
        "nested",
        "dict",
        "tensor",
        "deep",
        "array",
        "number",
        "function",
        "modules",
    ],
)
def test_the_digest_tells_plain_attributes_apart(first, second):
    assert frozen(Plain(first)).digest() == frozen(Plain(first)).digest() != frozen(Plain(second)).digest()


def test_the_digest_tells_buffers_that_are_not_saved_apart():
    other = Plain()
    other.hidden *= 2
    assert frozen(other).digest() != frozen(Plain()).digest()


def test_what_a_forward_leaves_behind_does_not_change_the_digest():
    model = frozen(Plain())
    before = model.digest()
    model.encode(torch.rand(3, *SHAPE))
    assert model.digest() == before
    model.encoder.how = 5.0
    assert model.digest() != before


def test_the_digest_is_the_same_in_every_process():
    text = (
        "import torch; from iin_training.models.frozen import FrozenModel; from test_frozen_model import Plain\n"
        "how = {'b': [1, None], 'a': torch.ones(2), 'f': torch.relu, 'o': object(), 's': {'x', 'y', 'z'}}\n"
        "print(FrozenModel(Plain(how), image_shape=(1, 8, 8), value_range=(0.0, 1.0)).digest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", text], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(digests) == 1


class Counting(nn.Module):
    """Notes the sizes of the batches that it is given."""

    def __init__(self, run):
        super().__init__()
        self.run, self.sizes = run, []

    def forward(self, items):
        self.sizes.append(len(items))
        return self.run(items)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("side", "most"), [(512, 8), (1536, 2)])
def test_large_images_go_through_every_part_few_at_a_time(device, side, most):
    shape = (3, side, side)
    encoder = Counting(lambda images: images[:, :, 0, 0])
    shown = Counting(lambda latents: latents[:, :, None, None].expand(-1, *shape))
    told = Counting(lambda latents: latents[:, :2])
    model = frozen(encoder, image_shape=shape, decoder=shown, head=told).to(device)
    latents = torch.rand(2 * most + 1, 3, device=device)
    images = latents[:, :, None, None].expand(-1, *shape)
    for network in (encoder, shown, told):
        network.sizes.clear()
    assert torch.equal(model.encode(images), latents)
    assert torch.equal(model.decode(latents), images)
    torch.testing.assert_close(model.classify(latents), latents[:, :2].softmax(dim=1))
    assert encoder.sizes == shown.sizes == told.sizes == [most, most, 1]


def test_small_images_are_encoded_on_a_processor_32_at_a_time_and_decoded_together():
    encoder, shown = Counting(deterministic()), Counting(decoder())
    model = frozen(encoder.eval(), decoder=shown)
    for network in (encoder, shown):
        network.sizes.clear()
    model.decode(model.encode(torch.rand(70, *SHAPE)))
    assert (encoder.sizes, shown.sizes) == ([32, 32, 6], [70])


class InPlace(nn.Sequential):
    """Overwrites what it is given, as a normalisation or a first ReLU in place does."""

    def forward(self, items):
        return super().forward(items.sub_(0.5))


def test_parts_that_change_their_input_in_place_leave_that_of_the_caller():
    plain = [deterministic(), decoder(), head()]
    model = frozen(InPlace(plain[0]), decoder=InPlace(plain[1]), head=InPlace(plain[2]))
    images, latents = torch.rand(3, *SHAPE), torch.randn(3, 2, 4, 4)
    before = images.clone(), latents.clone()
    found = model.encode(images), model.decode(latents), model.classify(latents)
    assert torch.equal(images, before[0])
    assert torch.equal(latents, before[1])
    expected = plain[0](images - 0.5), plain[1](latents - 0.5), plain[2](latents - 0.5).softmax(dim=1)
    torch.testing.assert_close(found, expected)


def test_a_model_without_decoder_says_so():
    model = frozen()
    assert (model.has_decoder, model.head) == (False, None)
    with pytest.raises(ValueError, match="head: expected one that tells classes, got none"):
        model.classify(torch.rand(2, 2, 4, 4))
    with pytest.raises(ValueError, match="decoder: expected one to show latents as images, got none"):
        model.decode(torch.rand(2, 2, 4, 4))


def test_images_of_another_size_are_refused():
    words = r"images: expected shape \['N', 1, 8, 8\], got \[2, 1, 16, 16\]; resize them"
    for run in (frozen().encode, lambda images: frozen().draw(images, torch.Generator())):
        with pytest.raises(ValueError, match=words):
            run(torch.rand(2, 1, 16, 16))


class Fixed(nn.Module):
    """Gives what it is told, whatever it is given."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, items):
        return self.output


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_shape": (2, 8, 8)}, r"image_shape: expected \(C, H, W\) with C = 1 .* got \(2, 8, 8\); for other"),
        ({"image_shape": (8, 8)}, r"image_shape: .* got \(8, 8\)"),
        ({"image_shape": 28}, r"image_shape: expected \(C, H, W\) .* got 28; for other"),
        ({"value_range": 1.0}, r"value_range: expected two finite values, black below .* got 1\.0"),
        ({"image_shape": (3, 8, 8)}, r"encoder: expected a network that takes .* \[2, 3, 8, 8\], got: .*image_shape"),
        ({"value_range": (1.0, 1.0)}, r"value_range: expected two finite values, black below .* got \(1\.0, 1\.0\)"),
        ({"encoder": lambda x: x}, "encoder: expected a torch module or an OnnxModule, got function; .*wrap a func"),
        ({"decoder": lambda z: z}, "decoder: expected a torch module or an OnnxModule, got function; give one, or"),
        ({"head": "head.onnx"}, "head: expected a torch module or an OnnxModule, got str; give one"),
        ({"encoder": Fixed({"z": 1})}, r"encoder: expected a tensor, got dict; wrap it .* or \(mean, log_variance\)$"),
        ({"encoder": Fixed(torch.ones(2, 3, dtype=torch.int64))}, "got torch.int64; of codes give what they stand for"),
        ({"encoder": Fixed([torch.rand(2, 3)] * 3)}, r"or two \(mean, log_variance\), got 3 values"),
        (
            {"encoder": Fixed((torch.rand(2, 3), torch.rand(2, 4)))},
            r"one shape, got \[2, 3\] and \[2, 4\]; .* or the latents alone",
        ),
        ({"encoder": Fixed(torch.rand(2, 3).double())}, r"encoder: expected float32, got torch\.float64; convert"),
        (
            {"encoder": Fixed(torch.rand(8, 3))},
            r"encoder: expected shape \[2, '\.\.\.'\] .* got \[8, 3\]; keep the batch",
        ),
        ({"encoder": Fixed(torch.rand(2))}, r"encoder: expected shape \[2, '\.\.\.'\] .* got \[2\]"),
        ({"encoder": Fixed(torch.rand(2, 1, 1))}, r"latents of at least 2 dimensions, got shape \[2, 1, 1\]"),
        ({"decoder": nn.Linear(3, 3)}, r"decoder: expected a network that takes .* \[2, 2, 4, 4\], got: "),
        ({"decoder": Fixed(torch.rand(2, 3, 8, 8))}, r"decoder: expected shape \[2, 1, 8, 8\] .* got \[2, 3, 8, 8\]"),
        ({"encoder": deterministic().double()}, r"encoder: .* its weights are torch\.float64, convert .*\.float\(\)$"),
        ({"decoder": decoder().half()}, r"decoder: .* its weights are torch\.float16, convert it with \.float\(\)$"),
        ({"head": Fixed(torch.rand(2, 1))}, r"head: expected at least 2 classes, got 1; .* two logits, \[0, x\]"),
        ({"head": Fixed(torch.rand(2, 1)), "head_gives": "probabilities"}, r"head: .* classes, got 1; .*\[1 - p, p\]"),
        (
            {"head": nn.Flatten(), "head_gives": "probs"},
            "head_gives: expected 'logits' or 'probabilities', got 'probs'",
        ),
        (
            {"head": nn.Sequential(nn.Flatten(), nn.Linear(32, 5), nn.Softmax(dim=1))},
            r"head: expected logits, got numbers that sum to 1 .* softmax do; give head_gives='probabilities'",
        ),
        ({"head": Fixed([torch.rand(2, 3)])}, "head: expected a tensor, got list; wrap it .* returns the tensor alone"),
        ({"head": Fixed(torch.rand(2, 3, 4)), "head_gives": "probabilities"}, r"head: .*\[2, classes\] .* \[2, 3, 4\]"),
    ],
)
def test_parts_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        frozen(**settings)


def exported():
    """As `torch.export.load` gives it back."""
    rows = torch.export.Dim("rows", min=1)
    program = torch.export.export(deterministic().eval(), (torch.rand(2, *SHAPE),), dynamic_shapes=({0: rows},))
    return program.module()


UNFIT = {
    "DataParallel": (lambda: nn.DataParallel(deterministic()), r"exports, got DataParallel; .* \(\.module of"),
    "torch.compile": (lambda: torch.compile(deterministic()), r"exports, got OptimizedModule; .* \._orig_mod of"),
    "TorchScript": (lambda: torch.jit.trace(deterministic(), torch.rand(2, *SHAPE)), "exports, .* it was made from"),
    "torch.export": (exported, "a module with an eval mode, got: .*; give the one that torch.export was given"),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), "weights, got none for 1.weight, .* load them"),
    "meta": (lambda: deterministic().to("meta"), "weights, got none for 0.weight, .* load them first"),
}


@pytest.mark.parametrize(("made", "words"), UNFIT.values(), ids=UNFIT)
def test_what_cannot_be_frozen_or_exported_is_refused(made, words):
    with pytest.raises(ValueError, match=f"^encoder: expected .*{words}"):
        frozen(made())


def test_a_graph_inside_a_module_is_refused(tmp_path):
    graph = as_onnx(decoder(), torch.rand(2, 2, 4, 4), tmp_path / "decoder.onnx")
    with pytest.raises(ValueError, match=r"decoder: .* got Sequential with an OnnxModule inside, .*merge_models"):
        frozen(decoder=nn.Sequential(graph, nn.Tanh()))
