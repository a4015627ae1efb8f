"""A commit is claimed only for a file that belongs to it."""

import subprocess

import pytest
from iin_training.git import git_commit


def git(folder, *words):
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    result = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return result.stdout.strip()


@pytest.fixture(autouse=True)
def no_other_repository(monkeypatch, tmp_path):
    """Neither that of a hook that runs the tests nor one around the temporary folder."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))


@pytest.fixture
def code(tmp_path):
    """A file in a package of a repository, committed."""
    file = tmp_path / "repository" / "package" / "module.py"
    file.parent.mkdir(parents=True)
    file.write_text("one\n")
    git(file.parent, "init", "--quiet")
    git(file.parent, "add", ".")
    git(file.parent, "commit", "--quiet", "--message", "first")
    return file


def test_a_clean_checkout_is_its_commit(code, tmp_path):
    commit = git(code.parent, "rev-parse", "HEAD")
    assert len(commit) == 40
    assert git_commit(code) == commit
    (tmp_path / "link.py").symlink_to(code)
    assert git_commit(tmp_path / "link.py") == commit


@pytest.mark.parametrize("staged", [False, True])
def test_changes_are_told(code, staged):
    (code.parent / "other.py").write_text("other\n")
    git(code.parent, "add", "other.py")
    git(code.parent, "commit", "--quiet", "--message", "second")
    (code.parent / "other.py").write_text("changed\n")
    if staged:
        git(code.parent, "add", "other.py")
    assert git_commit(code) == git(code.parent, "rev-parse", "HEAD") + "+changes"


def test_notes_beside_the_code_are_no_change(code):
    (code.parent / "notes.txt").write_text("untracked\n")
    assert git_commit(code) == git(code.parent, "rev-parse", "HEAD")


@pytest.mark.parametrize("ignored", [False, True])
def test_a_package_installed_inside_another_repository_is_unknown(code, ignored):
    root = code.parent.parent
    installed = root / ".venv" / "site-packages" / "package" / "module.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("one\n")
    if ignored:
        (root / ".gitignore").write_text(".venv\n")
    assert git_commit(installed) == "unknown"


def test_outside_a_repository_and_before_its_first_commit_is_unknown(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("one\n")
    assert git_commit(file) == "unknown"
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    assert git_commit(file) == "unknown"


def test_without_git_it_is_unknown(code, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_commit(code) == "unknown"
