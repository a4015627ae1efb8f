"""Files that are missing, altered or outside of the bundle are refused."""

import onnx
import pytest
from onnx.external_data_helper import set_external_data


def path_of(role, path):
    return lambda bundle: bundle.set(f"graphs.{role}.file.path", path)


def outside(bundle):
    """A copy of the decoder beside the bundle."""
    file = bundle.directory.parent / "outside.onnx"
    file.write_bytes((bundle.directory / "decoder.onnx").read_bytes())
    return file


def linking(target):
    def change(bundle):
        link = bundle.directory / "decoder.onnx"
        file = target(bundle)
        link.unlink()
        link.symlink_to(file)

    return change


def linking_folder(bundle):
    outside(bundle)
    (bundle.directory / "graphs").symlink_to(bundle.directory.parent)
    bundle.set("graphs.decoder.file.path", "graphs/outside.onnx")


def altering(name, *, then=lambda content: content):
    def change(bundle):
        path = bundle.directory / name
        path.write_bytes(then(path.read_bytes()))

    return change


def flip(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def external(location, **also):
    """The decoder with one tensor kept in another file."""

    def change(bundle):
        model = onnx.load(bundle.directory / "decoder.onnx")
        tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        content = tensor.raw_data
        set_external_data(tensor, location)
        tensor.ClearField("raw_data")
        (bundle.directory / "decoder.onnx").write_bytes(model.SerializeToString())
        (bundle.directory / "weights.bin").write_bytes(content)
        bundle.rehash()
        if also.get("listed"):
            bundle.set("graphs.decoder.external_data", [bundle.entry_of("weights.bin")])
        if "content" in also:
            (bundle.directory / "weights.bin").write_bytes(also["content"](content))

    return change


def external_through_a_link(bundle):
    external("folder/weights.bin")(bundle)
    (bundle.directory / "folder").symlink_to(bundle.directory.parent)


LEAVES = ["expected a path inside the bundle, got one that leaves it"]

# What is wrong: how to make it so, and words that the message must contain.
FAULTS = {
    "path with ..": (path_of("decoder", "../outside.onnx"), ["../outside.onnx: ", *LEAVES]),
    "path with .. inside": (path_of("decoder", "a/../../outside.onnx"), LEAVES),
    "absolute path": (path_of("decoder", "/etc/hostname"), ["/etc/hostname: ", *LEAVES]),
    "path with backslashes": (path_of("decoder", "..\\outside.onnx"), LEAVES),
    "empty path": (path_of("decoder", ""), LEAVES),
    "path with a null byte": (path_of("decoder", "a\0b"), ["expected a path inside the bundle"]),
    "endless path": (path_of("decoder", "x" * 5000), ["expected a file, found none"]),
    "link out of the bundle": (linking(outside), ["decoder.onnx: ", *LEAVES]),
    "folder that is a link": (linking_folder, ["graphs/outside.onnx: ", *LEAVES]),
    "link to itself": (linking(lambda bundle: bundle.directory / "decoder.onnx"), ["decoder.onnx: expected a"]),
    "golden out of the bundle": (lambda b: b.set("golden.path", "../golden.npz"), ["../golden.npz: ", *LEAVES]),
    "no file": (
        lambda b: (b.directory / "transform.onnx").unlink(),
        ["transform.onnx: expected a file, found none", "copy the bundle again"],
    ),
    "a folder for a file": (path_of("decoder", "samples"), ["samples: expected a file, found none"]),
    "no golden file": (lambda b: (b.directory / "golden.npz").unlink(), ["golden.npz: expected a file, found none"]),
    "too short": (altering("encoder.onnx", then=lambda c: c[:-1]), ["encoder.onnx: expected ", "bytes, found "]),
    "too long": (altering("encoder.onnx", then=lambda c: c + b"\0"), ["encoder.onnx: expected ", "bytes, found "]),
    "one bit altered": (altering("inverse.onnx", then=flip), ["inverse.onnx: expected sha256", "altered or damaged"]),
    "golden altered": (altering("golden.npz", then=flip), ["golden.npz: expected sha256", "altered or damaged"]),
    "not ONNX": (
        lambda b: b.replace_file("decoder.onnx", b"\xff" * 40),
        ["decoder.onnx: expected an ONNX file"],
    ),
    "data outside": (external("../weights.bin"), ["decoder.onnx: external data at '../weights.bin' leaves the bundle"]),
    "data at a root": (external("/etc/hostname"), ["external data at '/etc/hostname' leaves the bundle"]),
    "data at no place": (external(""), ["external data at '' leaves the bundle"]),
    "data behind a link": (external_through_a_link, ["external data at 'folder/weights.bin' leaves the bundle"]),
    "data not listed": (
        external("weights.bin"),
        ["external data at 'weights.bin' is not listed in graphs.decoder.external_data", "export the bundle again"],
    ),
    "data altered": (external("weights.bin", listed=True, content=flip), ["weights.bin: expected sha256"]),
    "data cut": (external("weights.bin", listed=True, content=lambda c: c[:-4]), ["weights.bin: expected "]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bundle_with_wrong_files_is_refused_with_a_message_about_what_is_wrong(bundle, fault):
    change, words = FAULTS[fault]
    change(bundle)
    message = bundle.refusal()
    assert [word for word in words if word not in message] == [], message


def test_a_copied_bundle_is_whole(bundle):
    errors = bundle.load()
    assert set(errors) == {"encoder", "transform", "inverse", "decoder", "round trip"}
    assert max(errors.values()) <= 1e-4


def test_a_link_within_the_bundle_is_followed(bundle):
    decoder = bundle.directory / "decoder.onnx"
    decoder.rename(bundle.directory / "samples" / "kept.onnx")
    decoder.symlink_to("samples/kept.onnx")
    assert bundle.load()["decoder"] <= 1e-4


def test_external_data_that_is_listed_is_verified_and_used(bundle):
    external("weights.bin", listed=True)(bundle)
    assert bundle.load()["decoder"] <= 1e-4


def test_external_data_is_found_beside_its_graph(bundle):
    external("weights.bin")(bundle)
    folder = bundle.directory / "graphs"
    folder.mkdir()
    for name in ("decoder.onnx", "weights.bin"):
        (bundle.directory / name).rename(folder / name)
    bundle.manifest["graphs"]["decoder"]["file"]["path"] = "graphs/decoder.onnx"
    bundle.set("graphs.decoder.external_data", [bundle.entry_of("graphs/weights.bin")])
    assert bundle.load()["decoder"] <= 1e-4
