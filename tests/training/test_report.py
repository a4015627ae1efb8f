"""`iin-train report`: what it tells of a run that is finished, interrupted, or none."""

import json
import shutil

import pytest
from iin_training.cli import main
from PIL import Image


def words(captured):
    return " ".join((captured.out + " " + captured.err).split())


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


@pytest.mark.parametrize("missing", ["bundle", "settings.json"])
def test_a_run_that_stopped_before_its_end_says_so(digits_bundle, capsys, tmp_path, missing):
    directory = shutil.copytree(digits_bundle.parent, tmp_path / "run")
    if missing == "bundle":
        shutil.rmtree(directory / "bundle")
    else:
        (directory / missing).unlink()
    assert main(["report", str(directory)]) == 0
    told = words(capsys.readouterr())
    reached = "the end of transform, no bundle yet" if missing == "bundle" else "an export"
    assert f"reached: {reached}; the same iin-train run goes on" in told
    assert ("residual" in told) == ("colour" in told) is True  # sizes, from the checkpoint or the bundle


def test_an_interrupted_run_says_which_stage_it_reached(begun, capsys):
    name, directory = begun
    assert main(["report", str(directory)]) == 0
    told = words(capsys.readouterr())
    assert f"reached: {name}, update 41 of 50; the same iin-train run goes on from update 30" in told
    assert f"factor sizes: {'residual 2, digit 1, colour 1' if name == 'transform' else 'not known yet'}" in told
    assert (directory / "curves.png").is_file()


def test_a_run_without_a_checkpoint_and_with_a_line_cut_short_is_told(stage, capsys, tmp_path):
    stage.train_until(tmp_path, 7)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "jud')
    assert main(["report", str(tmp_path)]) == 0
    assert f"reached: {stage.name}, update 1 of ?; the same iin-train run goes on from update 0" in words(
        capsys.readouterr()
    )


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
    assert main(["report", str(directory)]) == 0
    told = words(capsys.readouterr())
    assert f"warning: curves.png was not drawn: [Errno 21] Is a directory: '{directory / 'curves.png'}'" in told
    assert f"drawn: {directory / 'pictures.png'} finished: iin-serve {directory / 'bundle'}" in told
