"""Tensors of the Open Inference Protocol: typed contents hold the same numbers as raw ones."""

import tracemalloc

import numpy as np
import pytest
from iin_api.inference import grpc_service_pb2 as pb
from iin_service.errors import InvalidInput
from iin_service.tensors import ANY, TensorSpec, read_tensors, wanted_outputs, write_tensors

TYPED = pb.ModelInferRequest(inputs=[pb.ModelInferRequest.InferInputTensor(name="x")])


def written(array):
    return write_tensors(TYPED, {"x": array}, ["x"], "1").outputs[0]


@pytest.mark.parametrize("count", [1, 31, 32, 4095, 4096, 600_000])  # lengths of one byte to four
@pytest.mark.parametrize(("dtype", "field"), [("<f4", "fp32_contents"), ("<f8", "fp64_contents")])
def test_typed_contents_hold_the_numbers_as_they_are(count, dtype, field):
    array = np.random.default_rng(count).standard_normal(count).astype(dtype)
    array[0], array[-1] = -0.0, np.inf
    output = written(array)
    assert [one.name for one, _ in output.contents.ListFields()] == [field]
    found = pb.InferTensorContents.FromString(output.contents.SerializeToString())
    assert np.array(getattr(found, field), dtype).tobytes() == array.tobytes()


def test_what_is_answered_can_be_asked():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(0, 2, 1)  # not in its memory's order
    output = written(array)
    given = pb.ModelInferRequest.InferInputTensor(
        name="x", datatype=output.datatype, shape=output.shape, contents=output.contents
    )
    (found,) = read_tensors(pb.ModelInferRequest(inputs=[given]), [TensorSpec("x", "FP32", (ANY, 4, 3))], 256).values()
    np.testing.assert_array_equal(found.array, array)


def test_typed_contents_do_not_become_numbers_of_pythons_own():
    array = np.ones(1 << 20, np.float32)
    tracemalloc.start()
    try:
        output = written(array)
        request = pb.ModelInferRequest(
            inputs=[{"name": "x", "datatype": "FP32", "shape": array.shape, "contents": output.contents}]
        )
        read_tensors(request, [TensorSpec("x", "FP32", (ANY,))], array.nbytes)
        assert tracemalloc.get_traced_memory()[1] < 4 * array.nbytes  # a list of its numbers takes 8 times as much
    finally:
        tracemalloc.stop()


LONG = "\0" * 1_000_000  # which Python writes as four characters each
WRONG = {
    "name": ({"name": LONG}, {}),
    "datatype": ({"name": "x", "datatype": LONG}, {}),
    "output": ({}, {"name": LONG}),
}


@pytest.mark.parametrize(("given", "wanted"), WRONG.values(), ids=WRONG)
def test_of_a_long_name_a_part_is_told(given, wanted):
    request = pb.ModelInferRequest(inputs=[given], outputs=[wanted])
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=r"got '(\\x00)*\.\.\.'?$"):
            read_tensors(request, [TensorSpec("x", "FP32", (1,))], 256) if given else wanted_outputs(request, ["x"])
        assert tracemalloc.get_traced_memory()[1] < 3 * len(LONG)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("wanted", "expected"), [((1,), "[1]"), ((ANY, 4), "[-1, 4], where -1 is any length of 1 or more")]
)
def test_a_wrong_shape_is_told_what_the_right_one_is(wanted, expected):
    request = pb.ModelInferRequest(inputs=[{"name": "x", "datatype": "FP32", "shape": [0, 4]}])
    with pytest.raises(InvalidInput) as caught:
        read_tensors(request, [TensorSpec("x", "FP32", wanted)], 256)
    assert caught.value.description == f"expected {expected}, got [0, 4]"


def test_a_shape_of_a_million_axes_does_not_become_numbers_of_pythons_own():
    given = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1] * 1_000_000)
    request = pb.ModelInferRequest(inputs=[given])
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=r"expected \[-1, 4\].*, got \[1, 1, .*\.\.\.$") as caught:
            read_tensors(request, [TensorSpec("x", "FP32", (ANY, 4))], 256)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert caught.value.field == "inputs[0].shape"


@pytest.mark.parametrize(
    ("name", "value"), [("classification", {"int64_param": 3}), ("shared_memory_region", {"string_param": "there"})]
)
def test_an_output_in_a_form_that_is_not_served_is_refused_and_not_given_in_another(name, value):
    output = pb.ModelInferRequest.InferRequestedOutputTensor(name="x", parameters={name: pb.InferParameter(**value)})
    request = pb.ModelInferRequest(outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="y"), output])
    with pytest.raises(InvalidInput, match=f"expected the tensor itself, got {name}") as caught:
        wanted_outputs(request, ["x", "y"])
    assert caught.value.field == "outputs[1].parameters"


def test_an_input_that_lies_in_shared_memory_is_refused():
    where = {"shared_memory_region": pb.InferParameter(string_param="there")}
    given = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 4], parameters=where)
    request = pb.ModelInferRequest(inputs=[given], raw_input_contents=[bytes(16)])
    with pytest.raises(InvalidInput, match="expected the tensor itself, got shared_memory_region") as caught:
        read_tensors(request, [TensorSpec("x", "FP32", (ANY, 4))], 256)
    assert caught.value.field == "inputs[0].parameters"


def test_of_a_million_outputs_none_is_read_behind_the_first_wrong_one():
    class Counted(list):
        read = 0

        def __iter__(self):
            for one in super().__iter__():
                self.read += 1
                yield one

    class Request:
        outputs = Counted([pb.ModelInferRequest.InferRequestedOutputTensor(name="x")] * 1_000_000)

    with pytest.raises(InvalidInput, match="every output at most once, got 'x' again") as caught:
        wanted_outputs(Request(), ["x", "y"])
    assert caught.value.field == "outputs[1].name"
    assert Request.outputs.read == 2
