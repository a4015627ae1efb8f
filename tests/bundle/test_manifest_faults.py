"""Every way in which a manifest can be wrong has a message that says so."""

import json
import shutil

import pytest
from iin_bundle import BundleError, read_bundle


def setting(path, value):
    return lambda bundle: bundle.set(path, value)


def removing(path):
    return lambda bundle: bundle.remove(path)


def writing(content):
    return lambda bundle: (bundle.directory / "manifest.json").write_bytes(content)


def factors(*slices):
    return setting("factors", [{"name": name, "start": start, "size": size} for name, start, size in slices])


def adding_graph(bundle):
    bundle.manifest["graphs"]["extra"] = bundle.manifest["graphs"]["decoder"]
    bundle.save()


def adding_head(shape):
    def change(bundle):
        graph = json.loads(json.dumps(bundle.manifest["graphs"]["decoder"]))
        graph["outputs"][0]["shape"] = shape
        bundle.manifest["graphs"]["head"] = graph
        bundle.save()

    return change


def doubling(path):
    def change(bundle):
        role, side = path.split(".")
        bundle.manifest["graphs"][role][side] *= 2
        bundle.save()

    return change


# What is wrong: how to make it so, and words that the message must contain.
FAULTS = {
    "no directory": (
        lambda b: shutil.rmtree(b.directory),
        ["expected a bundle directory, found none; check"],
    ),
    "no manifest": (
        lambda b: (b.directory / "manifest.json").unlink(),
        ["manifest.json: expected the manifest, found none", "did not finish"],
    ),
    "empty manifest": (writing(b""), ["manifest.json: expected JSON"]),
    "manifest cut short": (writing(b'{"format_version": 1, "na'), ["manifest.json: expected JSON"]),
    "manifest not text": (writing(b"\xff\xfe\x00"), ["manifest.json: expected JSON"]),
    "a name twice": (
        writing(b'{"format_version": 1, "image": {"width": 1, "width": 2}}'),
        ["manifest.json: expected JSON", "'width' stands twice in one object"],
    ),
    "manifest nested too deep": (writing(b"[" * 100_000), ["manifest.json: expected JSON"]),
    "not an object": (writing(b"[1]"), ["format_version: expected 1, got None"]),
    "newer version": (setting("format_version", 2), ["format_version: expected 1, got 2", "export again"]),
    "version as text": (setting("format_version", "1"), ["format_version: expected 1, got '1'"]),
    "version true": (setting("format_version", True), ["format_version", "got True"]),
    "no version": (removing("format_version"), ["format_version: expected 1, got None"]),
    "missing field": (removing("family"), ["manifest.json.family: expected a value, got none"]),
    "missing field below": (removing("image.width"), ["manifest.json.image.width: expected a value"]),
    "unknown field": (setting("flavour", 1), ["manifest.json: expected fields", "got unknown flavour"]),
    "unknown field below": (
        setting("tolerances.latency", 1),
        ["manifest.json.tolerances: expected fields golden, round_trip, got unknown latency"],
    ),
    "number for text": (setting("name", 3), ["manifest.json.name: expected text, got 3"]),
    "text for a number": (setting("image.width", "32"), ["image.width: expected an integer, got '32'"]),
    "fraction for a whole number": (setting("image.width", 32.5), ["image.width: expected an integer, got 32.5"]),
    "true for a number": (setting("image.channels", True), ["image.channels: expected an integer, got True"]),
    "true for a fraction": (setting("image.minimum", False), ["image.minimum: expected a finite number, got False"]),
    "object for a list": (setting("factors", {}), ["manifest.json.factors: expected a list, got {}"]),
    "list for an object": (setting("graphs", []), ["manifest.json.graphs: expected an object, got []"]),
    "text for an object": (setting("image", "x"), ["manifest.json.image: expected an object, got 'x'"]),
    "wrong item of a list": (setting("latent_shape", [32, "a"]), ["latent_shape[1]: expected an integer, got 'a'"]),
    "wrong axis": (
        setting("graphs.encoder.inputs.0.shape", [None]),
        ["shape[0]: expected text or an integer"],
    ),
    "null for a figure": (setting("evaluation.swap_digit.value", None), ["swap_digit.value: expected a finite number"]),
    "text for a ceiling": (
        setting("evaluation.swap_digit.ceiling", "a"),
        ["ceiling: expected a finite number or nul"],
    ),
    "NaN": (setting("round_trip_error", float("nan")), ["round_trip_error: expected a finite number, got nan"]),
    "infinity": (setting("image.maximum", float("inf")), ["image.maximum: expected a finite number, got inf"]),
    "integer past any float": (setting("image.maximum", 10**400), ["image.maximum: expected a finite number"]),
    "long values are cut in the message": (setting("image", "x" * 1000), ["expected an object", "..."]),
    "layout": (setting("image.layout", "NHWC"), ["image: expected layout NCHW", "NHWC"]),
    "channels": (setting("image.channels", 2), ["1 or 3 channels", "(2, 32, 32)"]),
    "no height": (setting("image.height", 0), ["positive size", "(3, 0, 32)"]),
    "range": (setting("image.maximum", -1.0), ["image: expected minimum < maximum, got -1.0 and -1.0"]),
    "no latent": (setting("latent_shape", []), ["latent_shape: expected positive sizes, got []"]),
    "negative latent": (setting("latent_shape", [-32]), ["latent_shape: expected positive sizes, got [-32]"]),
    "no factors": (factors(), ["factors: expected one named 'residual', got none"]),
    "no residual": (factors(("digit", 0, 32)), ["factors: expected one named 'residual', got digit"]),
    "name twice": (
        factors(("residual", 0, 8), ("digit", 8, 8), ("digit", 16, 16)),
        ["factors: expected unique names, got digit more than once"],
    ),
    "no name": (
        factors(("residual", 0, 8), ("", 8, 24)),
        ["expected a name for every factor, got an empty one"],
    ),
    "overlap": (factors(("residual", 0, 20), ("digit", 10, 12)), ["they overlap at digit (starts at 10", "end at 20"]),
    "gap": (factors(("residual", 0, 10), ("digit", 12, 20)), ["they leave a gap at digit (starts at 12", "end at 10"]),
    "late start": (factors(("residual", 1, 31)), ["they leave a gap at residual (starts at 1"]),
    "short": (factors(("residual", 0, 31)), ["factors: expected slices that cover 32 dimensions, got 31"]),
    "long": (factors(("residual", 0, 33)), ["factors: expected slices that cover 32 dimensions, got 33"]),
    "empty factor": (factors(("residual", 0, 32), ("digit", 32, 0)), ["digit: expected a size of at least 1, got 0"]),
    "negative factor": (
        factors(("residual", 0, 40), ("digit", 40, -8)),
        ["expected a size of at least 1, got -8"],
    ),
    "one quantile": (
        setting("log_likelihood_quantiles", {"probabilities": [0.5], "values": [1]}),
        ["log_likelihood_quantiles: expected two increasing rows"],
    ),
    "quantiles of one probability twice": (
        setting("log_likelihood_quantiles", {"probabilities": [0.5, 0.5], "values": [1, 2]}),
        ["log_likelihood_quantiles: expected two increasing rows"],
    ),
    "a probability below 0": (
        setting("log_likelihood_quantiles", {"probabilities": [-0.1, 0.5], "values": [1, 2]}),
        ["log_likelihood_quantiles", "[0, 1]"],
    ),
    "quantiles of two lengths": (
        setting("log_likelihood_quantiles", {"probabilities": [0, 0.5, 1], "values": [1, 2]}),
        ["rows of equal length"],
    ),
    "unsorted probabilities": (
        setting("log_likelihood_quantiles", {"probabilities": [0.5, 0.1], "values": [1, 2]}),
        ["expected two increasing rows"],
    ),
    "unsorted values": (
        setting("log_likelihood_quantiles", {"probabilities": [0.1, 0.5], "values": [2, 1]}),
        ["expected two increasing rows"],
    ),
    "probability above one": (
        setting("log_likelihood_quantiles", {"probabilities": [0, 1.5], "values": [1, 2]}),
        ["log_likelihood_quantiles", "[0, 1]"],
    ),
    "round trip": (
        setting("round_trip_error", 0.5),
        ["round_trip_error: expected at most the tolerance 0.0001, got 0.5", "not invertible enough"],
    ),
    "negative round trip": (setting("round_trip_error", -1), ["round_trip_error", "got -1"]),
    "no graph": (removing("graphs.inverse"), ["graphs: expected encoder, transform, inverse", "missing: inverse"]),
    "unknown graph": (adding_graph, ["graphs: expected", "unknown: extra"]),
    "another input": (doubling("transform.inputs"), ["graphs.transform.inputs: expected 1, got 2"]),
    "no log-determinant": (removing("graphs.transform.outputs.1"), ["graphs.transform.outputs: expected 2, got 1"]),
    "dtype": (
        setting("graphs.decoder.inputs.0.dtype", "float64"),
        ["graphs.decoder.inputs.latent: expected dtype float32, got float64"],
    ),
    "image shape": (
        setting("graphs.encoder.inputs.0.shape", ["batch", 3, 28, 28]),
        ["graphs.encoder.inputs.image: expected shape ['batch', 3, 32, 32], got ['batch', 3, 28, 28]"],
    ),
    "fixed batch": (
        setting("graphs.inverse.inputs.0.shape", [1, 32]),
        ["graphs.inverse.inputs.factors: expected shape ['batch', 32], got [1, 32]"],
    ),
    "log-determinant per dimension": (
        setting("graphs.transform.outputs.1.shape", ["batch", 32]),
        ["graphs.transform.outputs.log_abs_det: expected shape ['batch']"],
    ),
    "latent size": (setting("latent_shape", [4, 8]), ["expected shape ['batch', 4, 8], got ['batch', 32]"]),
    "head without classes": (adding_head(["batch"]), ["graphs.head.outputs.image: expected shape [batch, classes]"]),
    "head of no classes": (adding_head(["batch", 0]), ["graphs.head.outputs.image: expected shape [batch, classes]"]),
    "head of a fixed batch": (adding_head([1, 10]), ["graphs.head.outputs.image: expected shape [batch, classes]"]),
    "head of unnamed classes": (adding_head(["batch", "classes"]), ["graphs.head.outputs.image: expected"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_manifest_is_refused_with_a_message_about_what_is_wrong(bundle, fault):
    change, words = FAULTS[fault]
    change(bundle)
    with pytest.raises(BundleError) as caught:
        read_bundle(bundle.directory)
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 700


def test_quantiles_may_have_a_likelihood_in_common(bundle):
    setting("log_likelihood_quantiles", {"probabilities": [0, 0.5, 1], "values": [1, 1, 2]})(bundle)
    assert read_bundle(bundle.directory).manifest.log_likelihood_quantiles.values == (1, 1, 2)
