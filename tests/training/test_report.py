"""`iin-train report`: what it tells of a run that is finished, interrupted, or none."""

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from iin_bundle import read_bundle
from iin_training.cli import main
from iin_training.model_card import model_card
from PIL import Image


def words(captured):
    return " ".join((captured.out + " " + captured.err).split())


class Page(HTMLParser):
    """A page as people see it: its text, tables and pictures; it is whole, and wants nothing from elsewhere."""

    def __init__(self, path):
        super().__init__()
        self.open, self.text, self.rows, self.pictures = [], [], [], {}
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        assert tag not in ("script", "link", "iframe")
        assert not {"href", "onload"} & given.keys()
        if tag == "img":
            kind, _, data = given["src"].partition(",")
            assert kind == "data:image/png;base64"
            self.pictures[given["alt"]] = pixels(io.BytesIO(base64.b64decode(data, validate=True)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & {*self.open}:
            self.rows[-1][-1] += data
        elif "style" not in self.open:
            self.text.append(data)


def pixels(file):
    with Image.open(file) as picture:
        return np.asarray(picture)


@pytest.fixture
def begun(stage, tmp_path):
    """A run that was interrupted in one of the stages, after a checkpoint at 30 of 50 updates."""
    stage.train_until(tmp_path, 44)
    return stage.name, tmp_path


def test_a_finished_run_is_told_with_its_figures_sizes_and_times(digits_bundle, capsys, tmp_path):
    directory = shutil.copytree(digits_bundle.parent, tmp_path / "run")
    (directory / "curves.png").unlink()
    assert main(["report", str(directory)]) == 0
    told = words(capsys.readouterr())
    manifest = json.loads((directory / "bundle/manifest.json").read_text())
    for name, figure in manifest["evaluation"].items():
        assert name in told
        assert f"{figure['value']:.3f}" in told or abs(figure["value"]) < 5e-4
    for part in manifest["factors"]:
        assert f"{part['name']} {part['size']}" in told
    for stage in ("judge", "first_stage", "transform"):
        assert stage in told
    assert f"finished: iin-serve {directory / 'bundle'}" in told
    assert f"drawn: {directory / 'curves.png'}, {directory / 'pictures.png'}" in told
    with Image.open(directory / "curves.png") as drawn:
        assert drawn.height > 300


def test_the_page_of_a_finished_run_has_all_figures_with_their_meanings_and_all_pictures(digits_bundle, tmp_path):
    directory = shutil.copytree(digits_bundle.parent, tmp_path / "run")
    assert main(["report", str(directory)]) == 0
    page = Page(directory / "report.html")
    rows = {row[0]: row[1:] for row in page.rows}
    for name, figure in read_bundle(directory / "bundle").manifest.evaluation.items():
        value, ceiling, floor, meaning = rows[name]
        assert float(value) == pytest.approx(figure.value, rel=0.06, abs=5e-4)
        assert (ceiling == "", floor == "", meaning) == (figure.ceiling is None, figure.floor is None, figure.meaning)
    assert rows["transform"][:2] == ["40", "40"]
    assert "finished: iin-serve" in " ".join(page.text)
    samples = {path.stem: path for path in (directory / "bundle/samples").iterdir()}
    drawn = {"What T makes of held-out pictures": "pictures.png", "Measured while training": "curves.png"}
    expected = samples | {heading: directory / name for heading, name in drawn.items()}
    assert page.pictures.keys() == expected.keys()
    assert all(np.array_equal(page.pictures[name], pixels(path)) for name, path in expected.items())


def test_a_bundle_has_its_page_beside_it_and_stays_as_it_was(digits_bundle, capsys, tmp_path, monkeypatch):
    bundle = shutil.copytree(digits_bundle, tmp_path / "digits-1.0")
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    monkeypatch.chdir(bundle)
    assert main(["report", "."]) == 0
    told = words(capsys.readouterr())
    assert f"page: {tmp_path / 'digits-1.0.html'}" in told
    assert "reconstruction_digit" in told
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before
    page = Page(tmp_path / "digits-1.0.html")
    assert page.pictures.keys() == {path.stem for path in (bundle / "samples").iterdir()}
    assert "reconstruction_digit" in {row[0] for row in page.rows}
    assert "transform" not in {row[0] for row in page.rows}


def test_a_users_names_are_no_html(digits_bundle, tmp_path):
    bundle = shutil.copytree(digits_bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["evaluation"]["judge_accuracy"]["meaning"] = "<script>alert(1)</script> & *more*|[a](b)"
    manifest["provenance"]["data_set"] = "<img src=x>"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    sample = next((bundle / "samples").iterdir())
    sample.rename(sample.with_name("<b>.png"))
    assert main(["report", str(bundle)]) == 0
    page = Page(tmp_path / "bundle.html")
    assert [row[-1] for row in page.rows if row[0] == "judge_accuracy"] == ["<script>alert(1)</script> & *more*|[a](b)"]
    assert "data: <img src=x>" in "".join(page.text)
    assert "<b>" in page.pictures


def test_a_users_names_are_no_formatting_of_the_terminal(digits_bundle, capsys, tmp_path):
    bundle = shutil.copytree(digits_bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["name"] = "mine [v2]"
    manifest["evaluation"]["rate [/s]_shared"] = manifest["evaluation"].pop("digit_shared")
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert main(["report", str(bundle)]) == 0
    told = words(capsys.readouterr())
    assert "mine [v2]: held-out quality" in told
    assert "rate [/s]_shared" in told


@pytest.mark.parametrize("text", ["p(a | b) is so", "two\nlines"], ids=["bar", "lines"])
def test_a_users_words_stay_in_their_cell_of_the_model_card(digits_bundle, text):
    manifest = read_bundle(digits_bundle).manifest
    figure = replace(manifest.evaluation["judge_accuracy"], meaning=text)
    card = model_card(replace(manifest, evaluation={text: figure}))
    rows = [re.split(r" (?<!\\)\| ", line) for line in card.splitlines() if line.startswith("| ")]
    shown = " ".join(text.split()).replace("|", "\\|")
    (named,) = [row for row in rows if row[0] == f"| {shown}"]
    assert len(named) == 5
    assert named[-1] == f"{shown} |"


@pytest.mark.parametrize("missing", ["bundle", "settings.json"])
def test_a_run_that_stopped_before_its_end_says_so(digits_bundle, capsys, tmp_path, missing):
    directory = shutil.copytree(digits_bundle.parent, tmp_path / "run")
    if missing == "bundle":
        shutil.rmtree(directory / "bundle")
    else:
        (directory / missing).unlink()
    assert main(["report", str(directory)]) == 0
    told = words(capsys.readouterr())
    there = "no bundle yet" if missing == "bundle" else "the bundle may be an earlier one"
    assert f"reached: the end of gaussianisation, {there}; the same iin-train run goes on" in told
    assert ("residual" in told) == ("colour" in told) is True  # sizes, from the checkpoint or the bundle


def test_an_interrupted_run_says_which_stage_it_reached(begun, capsys):
    name, directory = begun
    assert main(["report", str(directory)]) == 0
    told = words(capsys.readouterr())
    assert f"reached: {name}, update 41 of 50, no bundle yet; the same iin-train run goes on from update 30" in told
    assert f"factor sizes: {'residual 2, digit 1, colour 1' if name == 'transform' else 'not known yet'}" in told
    assert (directory / "curves.png").is_file()
    page = Page(directory / "report.html")
    assert page.rows[1][:3] == [name, "41", "50"]
    assert f"reached: {name}, update 41 of 50" in "".join(page.text)
    assert page.pictures.keys() == {"Measured while training"}


def test_a_run_without_a_checkpoint_and_with_a_line_cut_short_is_told(stage, capsys, tmp_path):
    stage.train_until(tmp_path, 7)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "jud')
    assert main(["report", str(tmp_path)]) == 0
    reached = f"reached: {stage.name}, update 1 of ?, no bundle yet; the same iin-train run goes on from update 0"
    assert reached in words(capsys.readouterr())


def test_an_interruption_does_not_count_as_time(capsys, tmp_path):
    times = [0.0, 60.0, 120.0, 180.0, 100_000.0, 100_060.0]
    lines = [{"stage": "judge", "step": 20 * n, "time": time, "loss": 1.0} for n, time in enumerate(times)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["report", str(tmp_path)]) == 0
    assert "judge │ 101 │ ? │ 4.0 │" in words(capsys.readouterr())


@pytest.mark.parametrize("name", ["nothing", "."])
def test_a_folder_that_is_no_run_is_refused(name, capsys, tmp_path):
    assert main(["report", str(tmp_path / name)]) == 1
    captured = capsys.readouterr()
    assert "RUN_DIR: expected the directory of a run that has begun to train" in captured.err
    assert captured.out == ""
    assert not (tmp_path / "nothing").exists()


def test_a_damaged_bundle_is_named(digits_bundle, capsys, tmp_path):
    directory = shutil.copytree(digits_bundle.parent, tmp_path / "run")
    (directory / "bundle/manifest.json").write_text("{")
    assert main(["report", str(directory)]) == 1
    captured = capsys.readouterr()
    assert "manifest" in captured.err
    assert "transform" in captured.out  # what could be told was


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b'{"stage": "jud',
        b"\xff\xfe\x00",
        b"[]",
        b'{"stage": "judge", "time": 1.0, "loss": 1.0}',
        b'{"step": 20, "time": 1.0, "loss": 1.0}',
        b'{"stage": "judge", "step": "20", "time": 1.0}',
        b'{"stage": "judge", "step": 20, "time": 1.0, "loss": {}}',
    ],
    ids=["empty", "cut", "not text", "not an object", "no step", "no stage", "step", "value"],
)
def test_a_damaged_line_of_metrics_is_named_with_the_remedy(capsys, tmp_path, line):
    good = json.dumps({"stage": "judge", "step": 0, "time": 0.0, "loss": 1.0}).encode()
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([good, line, good, b""]))
    assert main(["report", str(tmp_path)]) == 1
    told = words(capsys.readouterr())
    assert f"{tmp_path / 'metrics.jsonl'}: line 2: expected a JSON object" in told
    assert "remove this line" in told


@pytest.mark.parametrize("content", ["{", '{"weights": "w", "settings": {}}', '{"step": 1, "weights": "w"}'])
def test_a_damaged_checkpoint_is_named_with_the_remedy(capsys, tmp_path, content):
    (tmp_path / "metrics.jsonl").write_text('{"stage": "judge", "step": 0, "time": 0.0, "loss": 1.0}\n')
    folder = tmp_path / "checkpoints/judge"
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text(content)
    assert main(["report", str(tmp_path)]) == 1
    told = words(capsys.readouterr())
    assert f"{folder}: expected a whole checkpoint, but checkpoint.json does not read" in told
    assert "delete this folder" in told


def test_more_than_a_folder_is_wrong_usage(capsys, tmp_path):
    assert main(["report", str(tmp_path), "--seed", "1"]) == 2
    assert "RUN_DIR: expected nothing after it, got --seed 1" in capsys.readouterr().err


def test_a_finished_run_that_cannot_be_written_to_is_told_all_the_same(digits_bundle, capsys, tmp_path):
    directory = shutil.copytree(digits_bundle.parent, tmp_path / "run")
    (directory / "curves.png").unlink()
    (directory / "curves.png").mkdir()  # root may write to any folder, but to no folder as a file
    (directory / "report.html").mkdir()
    assert main(["report", str(directory)]) == 0
    told = words(capsys.readouterr())
    assert f"warning: curves.png was not drawn: [Errno 21] Is a directory: '{directory / 'curves.png'}'" in told
    assert f"warning: report.html was not written: [Errno 21] Is a directory: '{directory / 'report.html'}'" in told
    assert "page:" not in told
    assert f"drawn: {directory / 'pictures.png'} finished: iin-serve {directory / 'bundle'}" in told
