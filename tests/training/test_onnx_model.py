"""ONNX files as parts of the frozen model: run as they are, copied under a bundle's names, or refused."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from iin_training.graphs import write_graph
from iin_training.models.frozen import FrozenModel
from iin_training.models.onnx_model import OnnxModule
from onnx import TensorProto, helper, numpy_helper
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
SHAPE = (3, 8, 8)


def exported(network, path, *, dynamic=True, dynamo=True, example=None, **settings):
    """An ONNX file as users make them: of a batch axis of any size unless told otherwise, with either exporter."""
    example = torch.zeros(2, *SHAPE) if example is None else example
    if dynamo:
        shapes = ({0: torch.export.Dim("rows", min=1)},) if dynamic else None
        settings = {"dynamic_shapes": shapes, "verbose": False, "external_data": False} | settings
    elif dynamic:
        settings = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}, "y": {0: "n"}}}
    torch.onnx.export(network.eval(), (example,), path, dynamo=dynamo, **settings)
    return path


def made(nodes, inputs, outputs, weights=(), path=None):
    """A model of nodes with (name, shape) or (name, shape, type) on either side."""

    def values(side):
        return [
            helper.make_tensor_value_info(name, *(kind or [TensorProto.FLOAT]), shape) for name, shape, *kind in side
        ]

    graph = helper.make_graph(nodes, "made", values(inputs), values(outputs), list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, stride=2, padding=1))


@pytest.mark.parametrize("dynamo", [True, False], ids=["new exporter", "old exporter"])
def test_a_file_gives_what_its_network_gives_at_every_batch(network, tmp_path, dynamo):
    module = OnnxModule(exported(network, tmp_path / "given.onnx", dynamo=dynamo))
    for rows in (1, 2, 5):
        images = torch.randn(rows, *SHAPE)
        torch.testing.assert_close(module(images), network(images).detach(), rtol=1e-4, atol=1e-5)
    strided = torch.randn(3, 8, 8, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(module(strided), network(strided).detach(), rtol=1e-4, atol=1e-5)
    assert not module(images.requires_grad_()).requires_grad
    assert not list(module.parameters())


@pytest.mark.parametrize("dynamo", [True, False], ids=["new exporter", "old exporter"])
def test_the_copy_has_the_bundles_names_and_one_dynamic_axis(network, tmp_path, dynamo):
    module = OnnxModule(exported(network, tmp_path / "given.onnx", dynamo=dynamo))
    images = torch.randn(5, *SHAPE)
    module.write(tmp_path / "copy.onnx", input_name="image", example=images[:2], output_name="latent")
    session = onnxruntime.InferenceSession(tmp_path / "copy.onnx", providers=["CPUExecutionProvider"])
    described = [(node.name, node.shape) for node in (*session.get_inputs(), *session.get_outputs())]
    assert described == [("image", ["batch", 3, 8, 8]), ("latent", ["batch", 2, 4, 4])]
    for rows in (1, 5):
        (found,) = session.run(None, {"image": images[:rows].numpy()})
        assert np.array_equal(found, module(images[:rows]).numpy())


def test_names_inside_that_are_those_of_the_bundle_do_not_collide(tmp_path):
    nodes = [
        helper.make_node("Relu", ["latent"], ["image"]),
        helper.make_node("Neg", ["image"], ["batch"]),
    ]
    module = OnnxModule(made(nodes, [("latent", ["n", 4])], [("batch", ["n", 4])]))
    module.write(tmp_path / "copy.onnx", input_name="image", example=torch.zeros(2, 4), output_name="latent")
    again = OnnxModule(tmp_path / "copy.onnx")
    rows = torch.randn(3, 4)
    assert torch.equal(again(rows), -rows.relu())
    assert [value.name for value in onnx.load(tmp_path / "copy.onnx").graph.output] == ["latent"]


def test_a_graph_with_a_branch_that_uses_outer_values_is_copied_whole(tmp_path):
    def branch(name, kind, *used):
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(kind, ["x", *used], [f"{name}_out"])], name, [], [out])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node(
            "If", ["positive"], ["y"], then_branch=branch("a", "Relu"), else_branch=branch("b", "Mul", "weight")
        ),
    ]
    weights = [numpy_helper.from_array(np.float32(value), name) for name, value in (("zero", 0), ("weight", -2))]
    module = OnnxModule(made(nodes, [("x", ["n", 4])], [("y", ["n", 4])], weights))
    module.write(tmp_path / "copy.onnx", input_name="latent", example=torch.ones(2, 4), output_name="image")
    again = OnnxModule(tmp_path / "copy.onnx")
    for rows in (torch.tensor([[3.0, -1, 0, 0]]), torch.tensor([[-3.0, 1, 0, 0]])):
        assert torch.equal(again(rows), rows.relu() if rows.sum() > 0 else -2 * rows)


def test_what_onnxruntime_takes_though_no_checker_would_is_copied(tmp_path):
    nodes = [
        helper.make_node("Neg", ["positive"], ["y"]),
        helper.make_node("Relu", ["x"], ["positive"]),
    ]  # out of order
    model = made(nodes, [("x", ["n", 4])], [("y", ["n", 4])])
    model.graph.name = ""
    OnnxModule(model).write(tmp_path / "copy.onnx", input_name="image", example=torch.ones(2, 4), output_name="latent")
    rows = torch.randn(3, 4)
    assert torch.equal(OnnxModule(tmp_path / "copy.onnx")(rows), -rows.relu())


def test_axes_other_than_the_batch_become_fixed_in_the_copy(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    module = OnnxModule(made(nodes, [("x", ["n", 3, "high", "wide"])], [("y", [None, None, "high", "wide"])]))
    module.write(tmp_path / "copy.onnx", input_name="image", example=torch.zeros(2, *SHAPE), output_name="latent")
    graph = onnxruntime.InferenceSession(tmp_path / "copy.onnx", providers=["CPUExecutionProvider"])
    assert [node.shape for node in (*graph.get_inputs(), *graph.get_outputs())] == [["batch", 3, 8, 8]] * 2


def test_one_of_several_outputs_is_chosen_by_name(network, tmp_path):
    class Two(nn.Module):
        def forward(self, images):
            return network(images), images.mean(dim=(2, 3))

    path = exported(Two(), tmp_path / "two.onnx", output_names=["map", "colour"])
    with pytest.raises(ValueError, match=r"two\.onnx: expected one output, got map, colour; .* by name: output='map'"):
        OnnxModule(path)
    with pytest.raises(ValueError, match=r"output: expected one of map, colour, got 'size'"):
        OnnxModule(path, output="size")
    module, images = OnnxModule(path, output="colour"), torch.randn(3, *SHAPE)
    torch.testing.assert_close(module(images), images.mean(dim=(2, 3)), rtol=1e-5, atol=1e-6)
    module.write(tmp_path / "copy.onnx", input_name="image", example=images, output_name="latent")
    assert [value.name for value in onnx.load(tmp_path / "copy.onnx").graph.output] == ["latent"]


class Sampling(nn.Module):
    """An encoder of 8x8 images with two outputs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(192, 10)

    def forward(self, images):
        mean, log_variance = self.layer(images.flatten(1)).chunk(2, dim=1)
        return mean, log_variance - 2


@pytest.fixture
def sampling(tmp_path):
    """The encoder as a module, and as a file whose outputs come in the other order."""
    torch.manual_seed(0)
    network = Sampling()
    path = exported(network, tmp_path / "sampling.onnx", output_names=["mean", "log_variance"])
    model = onnx.load(path)
    outputs = list(model.graph.output)[::-1]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    onnx.save(model, path)
    return network, path


def frozen(encoder):
    return FrozenModel(encoder, image_shape=SHAPE, value_range=(0.0, 1.0))


def test_an_encoder_that_samples_does_as_its_network_does(sampling):
    network, path = sampling
    module, images = OnnxModule(path, output=("mean", "log_variance")), torch.rand(70, *SHAPE)
    expected, found = frozen(network), frozen(module)
    assert found.samples
    assert found.latent_shape == (5,)
    torch.testing.assert_close(found.posterior(images), expected.posterior(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.encode(images), network(images)[0].detach(), rtol=1e-4, atol=1e-5)
    draws = [model.draw(images, torch.Generator().manual_seed(0)) for model in (found, expected)]
    torch.testing.assert_close(*draws, rtol=1e-4, atol=1e-5)
    assert not torch.equal(draws[0], found.encode(images))


def test_the_graph_of_an_encoder_that_samples_gives_the_mean(sampling, tmp_path):
    network, path = sampling
    model, images = frozen(OnnxModule(path, output=("mean", "log_variance"))), torch.rand(40, *SHAPE)
    write_graph("encoder", model.networks()["encoder"], tmp_path / "copy.onnx", images)
    session = onnxruntime.InferenceSession(tmp_path / "copy.onnx", providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_outputs()] == ["latent"]
    (latents,) = session.run(None, {"image": images.numpy()})
    np.testing.assert_allclose(latents, network(images)[0].detach().numpy(), atol=1e-5)


def test_the_mean_of_an_encoder_that_samples_is_one_graph_that_keeps_the_files_name(sampling):
    path = sampling[1]
    model = frozen(OnnxModule(path, output=("mean", "log_variance")))
    digest = model.digest()
    mean = model.networks()["encoder"]
    assert model.networks()["encoder"] is mean
    assert model.digest() == digest  # and so no part of the encoder
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: expected a graph that takes batches of shape"):
        mean(torch.zeros(2, 5))


def test_the_digest_of_an_encoder_that_samples_is_also_of_its_log_variance(sampling):
    path = sampling[1]
    names = [("mean", "log_variance"), ("log_variance", "mean"), ("mean", "mean")]
    assert len({frozen(OnnxModule(path, output=pair)).digest() for pair in names}) == 3
    assert frozen(OnnxModule(path, output=names[0])).digest() == frozen(OnnxModule(path, output=names[0])).digest()
    with pytest.raises(ValueError, match=r"output: expected one of log_variance, mean, got 'spread'"):
        OnnxModule(path, output=("mean", "spread"))


def test_weights_in_a_file_of_their_own_are_taken_into_the_copy(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 100))
    path = exported(network, tmp_path / "given.onnx", external_data=True)
    assert (tmp_path / "given.onnx.data").is_file()
    module, images = OnnxModule(path), torch.randn(3, *SHAPE)
    module.write(tmp_path / "copy.onnx", input_name="image", example=images, output_name="latent")
    (tmp_path / "given.onnx.data").unlink()
    torch.testing.assert_close(
        OnnxModule(tmp_path / "copy.onnx")(images), network(images).detach(), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"given\.onnx: expected a whole ONNX file, and beside it every file"):
        OnnxModule(path)


def test_a_softmax_can_be_put_after_the_logits(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    head = OnnxModule(exported(network, tmp_path / "head.onnx")).with_softmax()
    assert head.name.endswith("head.onnx")
    images = torch.randn(3, *SHAPE)
    torch.testing.assert_close(head(images), network(images).detach().softmax(dim=1), rtol=1e-4, atol=1e-6)
    head.write(tmp_path / "copy.onnx", input_name="latent", example=images, output_name="probabilities")
    assert torch.equal(OnnxModule(tmp_path / "copy.onnx")(images), head(images))


def test_the_digest_is_that_of_the_weights(network, tmp_path):
    first = OnnxModule(exported(network, tmp_path / "first.onnx")).digest()
    assert OnnxModule(exported(network, tmp_path / "again.onnx")).digest() == first
    with torch.no_grad():
        network[0].bias[0] += 1e-3
    assert OnnxModule(exported(network, tmp_path / "other.onnx")).digest() != first


def test_a_fixed_batch_is_refused_with_the_remedy(network, tmp_path):
    path = exported(network, tmp_path / "fixed.onnx", dynamic=False)
    words = r"fixed\.onnx: .*: expected a batch axis of any size .* got \[2, 3, 8, 8\]; export it again with a dynamic"
    with pytest.raises(ValueError, match=words):
        OnnxModule(path)


def test_a_batch_that_is_fixed_inside_is_refused_when_it_shows():
    shape = numpy_helper.from_array(np.array([1, -1], np.int64), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    module = OnnxModule(made([node], [("x", ["n", 2, 2])], [("y", ["n", 4])], [shape]))
    with pytest.raises(ValueError, match=r"expected a row for each of 3 items, got shape \[1, 12\]; export it"):
        module(torch.zeros(3, 2, 2))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            made([helper.make_node("Add", ["x", "t"], ["y"])], [("x", ["n", 2]), ("t", ["n", 2])], [("y", ["n", 2])]),
            "expected one input, got x, t; export a model that takes a batch only",
        ),
        (
            made(
                [helper.make_node("Relu", ["x"], ["y"])],
                [("x", ["n", 2], TensorProto.FLOAT16)],
                [("y", ["n", 2], TensorProto.FLOAT16)],
            ),
            "ONNX model: x: expected float32, got FLOAT16",
        ),
        (
            made(
                [helper.make_node("ArgMax", ["x"], ["y"], axis=1)],
                [("x", ["n", 2])],
                [("y", ["n", 1], TensorProto.INT64)],
            ),
            "ONNX model: y: expected float32, got INT64",
        ),
        (
            made([helper.make_node("Unheard", ["x"], ["y"])], [("x", ["n", 2])], [("y", ["n", 2])]),
            "expected a graph of less than 2 GiB that onnxruntime loads, got: ",
        ),
        (made([helper.make_node("Relu", ["x"], ["y"])], [("x", ["n"])], [("y", ["n"])]), r"got \['n'\]"),
    ],
    ids=["two inputs", "half precision", "integers", "unknown operator", "no other axis"],
)
def test_graphs_that_cannot_be_parts_are_refused(model, words):
    with pytest.raises(ValueError, match=words):
        OnnxModule(model)


def test_the_reason_why_a_file_is_too_new_is_told():
    model = made([helper.make_node("Relu", ["x"], ["y"])], [("x", ["n", 2])], [("y", ["n", 2])])
    model.ir_version = 99
    with pytest.raises(ValueError, match=r"Unsupported model IR version: 99, .*; export it again .* older opset"):
        OnnxModule(model)


def test_files_that_are_no_graphs_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none\.onnx: expected an ONNX file, found none; check the path"):
        OnnxModule(tmp_path / "none.onnx")
    for content in (b"\xff\xfe these are not the weights", b""):
        (tmp_path / "text.onnx").write_bytes(content)
        with pytest.raises(ValueError, match=r"text\.onnx: expected a whole ONNX file"):
            OnnxModule(tmp_path / "text.onnx")


def test_images_of_another_size_than_the_graphs_are_refused(network, tmp_path):
    module = OnnxModule(exported(network, tmp_path / "given.onnx"))
    with pytest.raises(ValueError, match=r"expected a graph that takes batches of shape \[2, 3, 16, 16\].*image_shape"):
        module(torch.zeros(2, 3, 16, 16))


def test_an_old_file_that_lists_its_weights_as_inputs_has_one_input():
    weight = numpy_helper.from_array(np.float32([1, 2]), "w")
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    module = OnnxModule(made(nodes, [("x", ["n", 2]), ("w", [2])], [("y", ["n", 2])], [weight]))
    assert torch.equal(module(torch.ones(2, 2)), torch.tensor([[1.0, 2], [1, 2]]))
