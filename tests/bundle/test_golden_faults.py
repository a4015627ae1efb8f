"""Golden results that do not read, do not fit or do not hold are refused."""

import io
import os
import pickle
import zipfile

import numpy as np
import onnx
import pytest
from iin_bundle import BundleError, check_golden, read_bundle
from iin_training.graphs import open_runner


def replacing(content):
    return lambda bundle: bundle.replace_file("golden.npz", content)


def archive(members, compression=zipfile.ZIP_STORED):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return content.getvalue()


def damaged(content, at):
    return content[:at] + bytes(16 * [255]) + content[at + 16 :]


def npy(array, **how):
    content = io.BytesIO()
    np.save(content, array, **how)
    return content.getvalue()


def golden(key, change):
    def alter(arrays):
        arrays[key] = change(arrays[key])

    return lambda bundle: bundle.change_golden(alter)


def poison(array):
    array.flat[0] = np.nan
    return array


def unrelated_inverse(bundle):
    """An inverse that runs as recorded, but undoes another transform."""
    path = bundle.directory / "inverse.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims:
            tensor.CopyFrom(onnx.numpy_helper.from_array(0.9 * onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, path)

    def record(arrays):
        latent, log_abs_det = open_runner(path)(arrays["inverse/factors"])
        arrays |= {"inverse/latent": latent, "inverse/log_abs_det": log_abs_det}

    bundle.change_golden(record)


UNREADABLE = ["golden.npz: expected arrays of golden inputs, but it does not read"]

# What is wrong: how to make it so, and words that the message must contain.
FAULTS = {
    "not a zip": (replacing(b"text"), UNREADABLE),
    "empty": (replacing(b""), UNREADABLE),
    "one array": (replacing(npy(np.zeros(3))), UNREADABLE),
    "a pickle": (replacing(pickle.dumps({"encoder/image": 1})), UNREADABLE),
    "with a pickle in it": (
        replacing(archive({"encoder/image.npy": npy(np.array([{}]), allow_pickle=True)})),
        UNREADABLE,
    ),
    "with a text in it": (
        replacing(archive({"encoder/image": "not an array"})),
        UNREADABLE,
    ),
    "with a cut array": (
        replacing(archive({"encoder/image.npy": npy(np.zeros(9))[:-8]})),
        UNREADABLE,
    ),
    "with a damaged compressed array": (
        replacing(damaged(archive({"encoder/image.npy": npy(np.arange(99.0))}, zipfile.ZIP_DEFLATED), at=80)),
        UNREADABLE,
    ),
    "with a damaged header": (
        replacing(archive({"encoder/image.npy": npy(np.zeros(9)).replace(b"(9,)", b"(9,(")})),
        UNREADABLE,
    ),
    "without an array": (
        lambda b: b.change_golden(lambda arrays: arrays.pop("decoder/image")),
        ["golden.npz: expected the array decoder/image, got decoder/latent"],
    ),
    "of another type": (
        golden("transform/factors", lambda array: array.astype(np.float64)),
        ["transform/factors: expected float32 of shape ['batch', 32], got float64 of [4, 32]"],
    ),
    "of another shape": (
        golden("inverse/latent", lambda array: array[:, :5]),
        ["inverse/latent: expected float32 of shape ['batch', 32], got float32 of [4, 5]"],
    ),
    "of another rank": (
        golden("transform/log_abs_det", lambda array: array[:, None]),
        ["got float32 of [4, 1]"],
    ),
    "without rows": (
        golden("encoder/image", lambda array: array[:0]),
        ["encoder/image: expected at least one row"],
    ),
    "not a number": (golden("decoder/latent", poison), ["decoder/latent: expected at least one row of finite"]),
    "of other results": (
        golden("transform/factors", lambda array: array + np.float32(0.5)),
        ["check: transform: measured error 0.", "allowed 0.0001", "does not reproduce"],
    ),
    "of other log-determinants": (
        golden("inverse/log_abs_det", lambda array: array * 2 + 1),
        ["check: inverse: measured error", "allowed 0.0001"],
    ),
    "of fewer rows": (
        golden("decoder/image", lambda array: array[:-1]),
        ["check: decoder: measured error inf"],
    ),
    "inverse of another transform": (
        unrelated_inverse,
        ["check: inverse(transform(z)): measured error", "allowed 0.0001", "not inverses of each other"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_golden_results_are_refused_with_a_message_about_what_is_wrong(bundle, fault):
    change, words = FAULTS[fault]
    change(bundle)
    message = bundle.refusal()
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize("broken", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("role", ["encoder", "transform", "inverse", "decoder"])
def test_a_runtime_that_gives_no_number_is_refused(bundle, role, broken):
    read = read_bundle(bundle.directory)
    runs = {name: open_runner(read.graph_path(name)) for name in read.manifest.graphs}

    def run(name, rows):
        outputs = runs[name](rows)
        if name == role:
            outputs[-1].flat[-1] = broken  # of T the log-determinant, after factors that are right
        return outputs

    with pytest.raises(BundleError, match=rf"golden check: {role}: expected finite values of \w+, got NaN or infinity"):
        check_golden(read, run)


def test_a_pickle_in_the_golden_file_is_never_run(bundle, tmp_path):
    class Touch:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    replacing(archive({"encoder/image.npy": npy(np.array([Touch()]), allow_pickle=True)}))(bundle)
    with pytest.raises(BundleError):
        bundle.load()
    assert not (tmp_path / "owned").exists()


def test_a_head_and_a_missing_decoder_are_both_fine(bundle):
    weights = np.random.default_rng(0).standard_normal((32, 10)).astype(np.float32)
    name, batch = "head.onnx", onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["latent", "weights"], ["logits"])],
        "head",
        [batch("latent", onnx.TensorProto.FLOAT, ["batch", 32])],
        [batch("logits", onnx.TensorProto.FLOAT, ["batch", 10])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, bundle.directory / name)
    latent = np.ones((2, 32), dtype=np.float32)
    bundle.change_golden(lambda arrays: arrays.update({"head/latent": latent, "head/logits": latent @ weights}))
    del bundle.manifest["graphs"]["decoder"]
    spec = {"dtype": "float32"}
    bundle.set(
        "graphs.head",
        {
            "file": bundle.entry_of(name),
            "inputs": [spec | {"name": "latent", "shape": ["batch", 32]}],
            "outputs": [spec | {"name": "logits", "shape": ["batch", 10]}],
        },
    )
    errors = bundle.load()
    assert errors["head"] <= 1e-4
    assert "decoder" not in errors
