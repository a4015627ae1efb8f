"""The manifest appears whole or not at all, and reads back as it was."""

import json
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from iin_bundle import BundleError, Figure, FileEntry, Manifest, file_entry, read_bundle, write_manifest
from iin_bundle.json_schema import from_json

FINITE = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(float, FINITE)
PROPERTY = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture
def manifest(digits_bundle):
    return read_bundle(digits_bundle).manifest


@PROPERTY
@given(st.builds(Manifest))
def test_any_manifest_comes_back_from_json_as_it_was(manifest):
    text = json.dumps(asdict(manifest), allow_nan=False)
    assert from_json(Manifest, json.loads(text), "manifest") == manifest


@PROPERTY
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from([part.name for part in fields(Manifest)]),
)
def test_any_other_value_is_refused_by_name_or_comes_back_as_it_was(digits_bundle, value, field):
    values = json.loads((digits_bundle / "manifest.json").read_text()) | {field: value}
    try:
        built = from_json(Manifest, values, "manifest")
    except BundleError as error:
        refused = str(error)
    else:
        refused = None
        assert from_json(Manifest, json.loads(json.dumps(asdict(built))), "manifest") == built
    assert refused is None or refused.startswith(f"manifest.{field}")


def test_a_written_manifest_is_the_one_that_is_read(bundle, manifest):
    changed = replace(manifest, name="été", version="2")
    write_manifest(bundle.directory, changed)
    assert read_bundle(bundle.directory).manifest == changed


def test_nothing_but_the_manifest_is_left_by_writing(bundle, manifest):
    before = sorted(path.name for path in bundle.directory.iterdir())
    write_manifest(bundle.directory, manifest)
    assert sorted(path.name for path in bundle.directory.iterdir()) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_manifest_that_cannot_be_written_leaves_the_old_one(bundle, manifest, value):
    before = (bundle.directory / "manifest.json").read_bytes()
    names = sorted(path.name for path in bundle.directory.iterdir())
    broken = replace(manifest, evaluation={"swap": Figure(value=value, meaning="broken")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_manifest(bundle.directory, broken)
    assert (bundle.directory / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in bundle.directory.iterdir()) == names
    assert read_bundle(bundle.directory).manifest == manifest


def test_an_entry_holds_the_length_and_digest_of_its_file(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_bytes(b"abc")
    assert file_entry(tmp_path, "folder/file") == FileEntry(
        path="folder/file",
        sha256="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        bytes=3,
    )


def test_the_entry_of_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        file_entry(tmp_path, "nothing")
