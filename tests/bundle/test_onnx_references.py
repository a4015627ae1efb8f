"""External data of ONNX files is found without the onnx package, and agrees with it."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iin_bundle import BundleError
from iin_bundle.onnx_references import external_data_paths
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import _get_all_tensors, set_external_data, uses_external_data

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)


def tensor(name, location=None):
    made = numpy_helper.from_array(np.arange(4, dtype=np.float32), name)
    if location is not None:
        set_external_data(made, location, offset=0, length=16)
        made.ClearField("raw_data")
    return made


def model_of(graph, **more):
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, **more)


def graph_of(name, nodes=(), tensors=()):
    value = helper.make_tensor_value_info(f"{name}/out", TensorProto.FLOAT, [4])
    return helper.make_graph(list(nodes), name, [], [value], list(tensors))


def constant(location):
    return helper.make_node("Constant", [], ["c"], value=tensor("c", location))


def branching(then_branch, else_branch):
    return helper.make_node("If", ["condition"], ["out"], then_branch=then_branch, else_branch=else_branch)


def nested(locations):
    """A model whose tensors lie in the graph, in a node, and in graphs within graphs."""
    a, b, c, d, e = locations
    inner = graph_of("inner", [constant(d)], [tensor("d", e)])
    middle = graph_of("middle", [branching(inner, graph_of("empty"))], [tensor("m", c)])
    return model_of(graph_of("outer", [constant(b), branching(middle, graph_of("other"))], [tensor("a", a)]))


def by_onnx(model):
    """Paths according to the onnx package."""
    found = set()
    for part in _get_all_tensors(model):
        if uses_external_data(part):
            found |= {entry.value for entry in part.external_data if entry.key == "location"}
    return found


@PROPERTY
@given(st.tuples(*[st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)] * 5))
def test_every_tensor_is_found_wherever_it_is_nested(locations):
    model = nested(locations)
    expected = {location for location in locations if location is not None}
    assert by_onnx(model) == expected
    assert external_data_paths(model.SerializeToString()) == expected


def test_tensors_of_functions_and_lists_and_sparse_ones_are_found():
    function = helper.make_function(
        "own", "f", [], ["c"], [constant("function.bin")], [helper.make_opsetid("", 18)], attributes=[]
    )
    listing = helper.make_node("Any", [], ["x"], domain="own")
    listing.attribute.append(helper.make_attribute("tensors", [tensor("t", "list.bin"), tensor("u", "second.bin")]))
    listing.attribute.append(helper.make_attribute("graphs", [graph_of("g", [], [tensor("g", "graphs.bin")])]))
    sparse = helper.make_sparse_tensor(
        tensor("values", "values.bin"), numpy_helper.from_array(np.arange(4, dtype=np.int64), "at"), [9]
    )
    graph = graph_of("outer", [listing])
    graph.sparse_initializer.append(sparse)
    listing_of_sparse = helper.make_node("Any", [], ["y"], domain="own")
    listing_of_sparse.attribute.append(helper.make_attribute("one", sparse))
    graph.node.append(listing_of_sparse)
    model = model_of(graph, functions=[function])
    model.training_info.add().algorithm.initializer.append(tensor("step", "training.bin"))
    assert external_data_paths(model.SerializeToString()) == {
        "function.bin",
        "list.bin",
        "second.bin",
        "graphs.bin",
        "values.bin",
        "training.bin",
    }


def test_a_model_saved_by_onnx_with_external_data_names_its_files(tmp_path):
    model = nested([None] * 5)
    path = tmp_path / "model.onnx"
    onnx.save_model(
        model,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=0,
        convert_attribute=True,
    )
    found = external_data_paths(path.read_bytes())
    assert found == by_onnx(onnx.load(path, load_external_data=False))
    assert found == {file.name for file in tmp_path.iterdir()} - {"model.onnx"}


def test_the_graphs_of_a_real_bundle_keep_their_data_inside(digits_bundle):
    graphs = sorted(digits_bundle.glob("*.onnx"))
    assert len(graphs) == 4
    assert [external_data_paths(path.read_bytes()) for path in graphs] == [set()] * 4


def outcome(content):
    """Whether the bytes are read, or refused in the one way that callers expect."""
    try:
        found = external_data_paths(content)
    except BundleError as error:
        return "expected an ONNX file" in str(error)
    return all(isinstance(path, str) for path in found)


@PROPERTY
@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_read_or_refused_but_never_crash(content):
    assert outcome(content)


@PROPERTY
@given(st.data())
def test_a_damaged_model_is_read_or_refused_but_never_crashes(data):
    content = bytearray(nested(["a.bin", "b", "c", "d", "e"]).SerializeToString())
    length = data.draw(st.integers(0, len(content)))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(bytes(content[:length]))


@pytest.mark.parametrize("cut", [1, 3, 10])
def test_a_model_cut_short_is_refused(cut):
    content = nested(["a.bin", "b", "c", "d", "e"]).SerializeToString()
    end = content.index(b"a.bin") + 5 - cut  # inside the graph
    with pytest.raises(BundleError, match="expected an ONNX file, got bytes that do not parse"):
        external_data_paths(content[:end])


def message_field(number, content):
    """A length-delimited field in protobuf's wire format."""
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def test_graphs_nested_without_end_are_refused():
    """A thousand times a node with an attribute that is a graph, inside of one another."""
    content = b""
    for _ in range(1000):
        for number in (6, 5, 1):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            content = message_field(number, content)
    with pytest.raises(BundleError, match="expected an ONNX file"):
        external_data_paths(message_field(7, content))
