"""An unmodified tritonclient works against the service; what it sends wrongly is refused by field."""

import json
import re
import subprocess
import sys

import grpc
import numpy as np
import pytest
from iin_api.inference import grpc_service_pb2 as pb
from iin_api.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from iin_bundle import read_bundle

# In a process of its own: its generated messages have the names of ours.
TRITON = """
import json, sys
import numpy as np
import tritonclient.grpc as triton

def tensor(name, values, kind):
    found = triton.InferInput(name, values.shape, kind)
    found.set_data_from_numpy(values)
    return found

client = triton.InferenceServerClient(sys.argv[1])
pictures = [open(path, "rb").read() for path in sys.argv[2:]]
encoded = np.array(pictures, object)
told = {
    "states": [client.is_server_live(), client.is_server_ready(), client.is_model_ready("interpret"),
               client.is_model_ready("nonsense"), client.is_model_ready("encoder", "no such version")],
    "server": client.get_server_metadata().name,
    "models": {name: [one.name for one in client.get_model_metadata(name).inputs]
               for name in ("encoder", "transform", "inverse", "decoder", "interpret", "edit", "sample")},
}
found = client.infer("interpret", [tensor("encoded_image", encoded, "BYTES")], request_id="call 7")
told["id"] = found.get_response().id
told["factors"] = found.as_numpy("factors").tolist()
told["log_likelihood"] = found.as_numpy("log_likelihood").tolist()
factors = found.as_numpy("factors")
edited = client.infer("edit", [tensor("factors", factors, "FP32"), tensor("source_factors", factors[:1], "FP32"),
                               tensor("factor", np.array([b"digit"], object), "BYTES")],
                      outputs=[triton.InferRequestedOutput("factors")])
told["edited"] = edited.as_numpy("factors").tolist()
drawn = client.infer("sample", [tensor("count", np.array([40], np.int64), "INT64"),
                                tensor("seed", np.array([7], np.uint64), "UINT64"),
                                tensor("truncation", np.array([0.5], np.float32), "FP32")])
told["drawn"] = [list(drawn.as_numpy("image").shape), drawn.as_numpy("factors")[:2].tolist()]
try:
    client.infer("nonsense", [tensor("encoded_image", encoded, "BYTES")])
except triton.InferenceServerException as error:
    told["error"] = str(error)
print(json.dumps(told))
"""


@pytest.fixture
def inference(service):
    with grpc.insecure_channel(service.address) as channel:
        yield GRPCInferenceServiceStub(channel)


def test_an_unmodified_tritonclient_is_served(service, client, pictures):
    result = subprocess.run(
        [sys.executable, "-c", TRITON, service.address, *pictures[:3]], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["states"] == [True, True, True, False, False]
    assert (told["server"], told["id"]) == ("iin-serve", "call 7")
    assert told["models"]["edit"][0] == "image"
    own = client.interpret(pictures[:3])
    np.testing.assert_allclose(told["factors"], own.factors, atol=1e-4)
    np.testing.assert_allclose(told["log_likelihood"], own.log_likelihoods, atol=1e-2)
    digit = next(part for part in client.get_model().factors if part.name == "digit")
    where = slice(digit.start, digit.start + digit.size)
    expected = own.factors.copy()
    expected[:, where] = own.factors[0, where]
    np.testing.assert_allclose(told["edited"], expected, atol=1e-4)
    shape, drawn = told["drawn"]
    assert shape == [40, 3, 32, 32]
    np.testing.assert_array_equal(np.float32(drawn), next(client.sample(2, seed=7, truncation=0.5)).factors)
    assert "model 'nonsense' is not served" in told["error"]


def test_graphs_run_as_the_bundle_has_them(inference, digits_bundle):
    bundle = read_bundle(digits_bundle)
    for role, graph in bundle.manifest.graphs.items():
        given = bundle.golden[f"{role}/{graph.inputs[0].name}"]
        tensor = pb.ModelInferRequest.InferInputTensor(name=graph.inputs[0].name, datatype="FP32", shape=given.shape)
        request = pb.ModelInferRequest(model_name=role, inputs=[tensor], raw_input_contents=[given.tobytes()])
        found = inference.ModelInfer(request)
        for spec, output, data in zip(graph.outputs, found.outputs, found.raw_output_contents, strict=True):
            assert output.name == spec.name
            values = np.frombuffer(data, "<f4").reshape(output.shape)
            np.testing.assert_allclose(values, bundle.golden[f"{role}/{spec.name}"], atol=1e-3)


def test_typed_contents_are_answered_by_typed_contents(inference):
    zeros = pb.InferTensorContents(fp32_contents=[0.0] * 32)
    tensor = pb.ModelInferRequest.InferInputTensor(name="factors", datatype="FP32", shape=[1, 32], contents=zeros)
    found = inference.ModelInfer(pb.ModelInferRequest(model_name="interpret", inputs=[tensor]))
    outputs = {output.name: output for output in found.outputs}
    assert not found.raw_output_contents
    assert len(outputs["latent"].contents.fp32_contents) == 32
    assert (outputs["log_likelihood"].datatype, len(outputs["log_likelihood"].contents.fp64_contents)) == ("FP64", 1)


def test_an_answer_says_where_the_time_went(inference):
    request = pb.ModelInferRequest(model_name="edit", inputs=[tensor(**ZEROS), SOURCE, DIGIT])
    told = {name: value.double_param for name, value in inference.ModelInfer(request).parameters.items()}
    stages = {f"{role}_compute_ms" for role in ("inverse", "decoder")}
    assert told.keys() == {"total_ms", "queue_ms", "codec_ms"} | stages
    assert told["codec_ms"] == 0 < min(told[stage] for stage in stages)
    assert sum(told[stage] for stage in stages) < told["total_ms"]


def test_a_source_serves_all_factors_that_are_named(inference):
    targets, sources = np.random.default_rng(0).standard_normal((2, 200, 32), dtype=np.float32)
    names = b"".join(len(name).to_bytes(4, "little") + name for name in (b"digit", b"colour", b"residual"))
    given = [tensor(shape=[200, 32]), tensor("source_factors", shape=[200, 32]), tensor("factor", "BYTES", [3])]
    found = inference.ModelInfer(
        pb.ModelInferRequest(
            model_name="edit",
            inputs=given,
            outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="factors")],
            raw_input_contents=[targets.tobytes(), sources.tobytes(), names],
        )
    )
    assert np.array_equal(np.frombuffer(found.raw_output_contents[0], "<f4").reshape(200, 32), sources)


def tensor(name="factors", datatype="FP32", shape=(1, 32), **contents):
    found = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    if contents:
        found.contents.CopyFrom(pb.InferTensorContents(**contents))
    return found


ZEROS = {"fp32_contents": [0.0] * 32}
RAW = [bytes(128)]
SOURCE = tensor("source_factors", **ZEROS)
DIGIT = tensor("factor", "BYTES", [1], bytes_contents=[b"digit"])
COUNT = tensor("count", "INT64", [1], int64_contents=[8])


@pytest.mark.parametrize(
    ("model", "inputs", "raw", "message"),
    [
        ("interpret", [tensor(datatype="FP33")], RAW, r"inputs\[0\].datatype: expected FP32 for factors, got 'FP33'"),
        ("interpret", [tensor(shape=[2**40, 2**40])], RAW, r"inputs\[0\].shape: expected \[-1, 32\]"),
        ("interpret", [tensor(shape=[2**62, 32])], RAW, r"inputs\[0\]: expected at most 256 items"),
        ("interpret", [tensor(shape=[-1, 32])], RAW, r"inputs\[0\].shape"),
        ("interpret", [tensor(shape=[])], RAW, r"inputs\[0\].shape"),
        ("interpret", [tensor(**ZEROS)], RAW, r"inputs\[0\].contents: expected no contents beside raw_input"),
        ("interpret", [tensor()], [*RAW, *RAW], "raw_input_contents: expected 1 entries"),
        ("interpret", [tensor()], [bytes(100)], r"raw_input_contents\[0\]: expected 128 bytes"),
        ("interpret", [tensor(fp64_contents=[0.0] * 32)], [], r"contents.fp64_contents: expected fp32_contents alone"),
        ("interpret", [tensor(**ZEROS, int_contents=[1])], [], r"contents.int_contents: expected fp32_contents alone"),
        ("interpret", [tensor(fp32_contents=[0.0] * 31)], [], r"fp32_contents: expected 32 elements"),
        ("interpret", [tensor(fp32_contents=[float("nan")] * 32)], [], r"inputs\[0\]: expected finite values"),
        ("interpret", [tensor(), tensor()], [*RAW, *RAW], r"inputs\[1\].name: expected every input at most once"),
        ("interpret", [], [], "inputs: expected one of image, latent, factors, encoded_image, got none"),
        ("interpret", [tensor("encoded_image", "BYTES", [1])], [b"\xff\xff\xff\x7f"], "an element that is cut"),
        (
            "interpret",
            [tensor("encoded_image", "BYTES", [1])],
            [b"\x02\x00\x00\x00ab"],
            "element 0: expected a whole PNG",
        ),
        ("interpret", [tensor("encoded_image", "BYTES", [1])], [bytes(60_000_000)], "expected 1 elements .* got more"),
        ("interpret", [tensor("encoded_image", "BYTES", [300])], [b""], "at most 256 items in a call, got 300"),
        ("edit", [tensor(**ZEROS)], [], "inputs: expected one of source_image"),
        (
            "edit",
            [
                tensor(**ZEROS),
                tensor("source_factors", **ZEROS),
                tensor("factor", "BYTES", [2], bytes_contents=[b"digit", b"digit"]),
            ],
            [],
            "expected every factor once",
        ),
        (
            "edit",
            [
                tensor("source_factors", fp32_contents=[3e38] * 32),
                tensor(**ZEROS),
                tensor("factor", "BYTES", [1], bytes_contents=[b"digit"]),
            ],
            [],
            r"inputs\[0\]: expected values that the model maps to finite ones",
        ),
        (
            "sample",
            [COUNT, tensor("temperature", "FP32", [1], fp32_contents=[3e38])],
            [],
            r"inputs\[1\]: expected .* an overflow",
        ),
        (
            "sample",
            [COUNT, tensor("truncation", "FP32", [1], fp32_contents=[0.05])],
            [],
            r"inputs\[1\]: expected a finite number of at least 0\.1, got 0\.05",
        ),
        ("sample", [tensor("count", "INT64", [1], int64_contents=[2**40])], [], "expected between 1 and 256"),
        ("sample", [tensor("count", "INT64", [1], int64_contents=[-1])], [], "expected between 1 and 256"),
    ],
)
def test_mistakes_are_refused_by_field(inference, model, inputs, raw, message):
    request = pb.ModelInferRequest(model_name=model, inputs=inputs, raw_input_contents=raw)
    with pytest.raises(grpc.RpcError) as caught:
        inference.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()
    assert re.search(message, caught.value.details()), caught.value.details()


def test_an_unknown_output_or_version_is_refused(inference):
    unknown, twice = (
        [pb.ModelInferRequest.InferRequestedOutputTensor(name=name)] * count
        for name, count in (("x", 1), ("latent", 2))
    )
    for request, code in (
        (pb.ModelInferRequest(model_name="interpret", inputs=[tensor(**ZEROS)], outputs=unknown), "INVALID_ARGUMENT"),
        (pb.ModelInferRequest(model_name="interpret", inputs=[tensor(**ZEROS)], outputs=twice), "INVALID_ARGUMENT"),
        (pb.ModelInferRequest(model_name="x" * 100_000, inputs=[tensor(**ZEROS)]), "NOT_FOUND"),
        (pb.ModelInferRequest(model_name="interpret", model_version="0", inputs=[tensor(**ZEROS)]), "NOT_FOUND"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            inference.ModelInfer(request)
        assert caught.value.code().name == code
