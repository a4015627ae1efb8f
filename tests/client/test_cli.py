"""The command line teaches, refuses what is wrong, and keeps the order of edits."""

import io
import json
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from iin_api.v1 import interpretation_pb2 as pb
from iin_api.v1.interpretation_pb2_grpc import (
    InterpretationServiceServicer,
    add_InterpretationServiceServicer_to_server,
)
from iin_client import Replace, Resample, SetValue, Shift, cli
from iin_client.arguments import build_parser
from iin_client.cli import main
from PIL import Image

COMMANDS = ["describe", "interpret", "edit", "sample", "traverse", "respond", "models", "gallery"]


class Drawing(InterpretationServiceServicer):
    """Serves a model of some graphs, whose every image is red."""

    def __init__(self, *roles):
        self.roles = roles
        self.samples = []
        self.models = 1

    def GetModel(self, request, context):
        graphs, image = [pb.Graph(role=role) for role in self.roles], pb.ImageSpec(channels=3, height=4, width=4)
        limits = pb.Limits(max_items=2, max_image_pixels=10**6, max_message_bytes=10**6)
        return pb.GetModelResponse(model=pb.Model(name="mine", version="3", image=image, graphs=graphs), limits=limits)

    def Interpret(self, request, context):
        if len(request.inputs) == 2:
            return pb.InterpretResponse(latents=pb.Tensor(shape=[0, 1]), factors=pb.Tensor(shape=[0, 1]))
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "inputs[0].encoded_image: expected another size")

    def Edit(self, request, context):
        return pb.EditResponse(images=self._images(len(request.targets)), factors=pb.Tensor(shape=[0, 1]))

    def Sample(self, request, context):
        self.samples.append(request)
        for _ in range(request.count):
            yield pb.SampleResponse(images=self._images(1), factors=pb.Tensor(shape=[0, 1]))

    def Traverse(self, request, context):
        yield pb.TraverseResponse(images=self._images(request.frames), factors=pb.Tensor(shape=[0, 1]))

    def Respond(self, request, context):
        def tensor(*values):
            return pb.Tensor(shape=[1, len(values)], data=struct.pack(f"<{len(values)}f", *values))

        digit = pb.FactorResponse(
            factor="digit",
            mean_probabilities=tensor(0.5, 0.5),
            probability_deviations=tensor(0.25, 0.125),
            class_deviations=[0.5],
            class_changes=[0.75],
        )
        return pb.RespondResponse(probabilities=tensor(0.25, 0.75), factors=[digit])

    def ListModels(self, request, context):
        model = pb.ServedModel(application="mine", state=pb.APPLICATION_STATE_RUNNING)
        model.description.CopyFrom(self.GetModel(None, context))
        return pb.ListModelsResponse(models=[model] * self.models)

    def _images(self, count):
        red = io.BytesIO()
        Image.new("RGB", (4, 4), "red").save(red, format="PNG")
        return pb.Images(encoded=[red.getvalue()] * count)


@contextmanager
def serving(service):
    server = grpc.server(futures.ThreadPoolExecutor(2))
    add_InterpretationServiceServicer_to_server(service, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield f"localhost:{port}"
    server.stop(grace=None).wait()


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4), "red").save(path)
    return str(path)


def parse(*arguments):
    return build_parser().parse_args(arguments)


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example_that_starts_with_it(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"example: iin {command} " in capsys.readouterr().out


def test_edits_apply_in_the_order_of_the_command_line(picture):
    options = parse(
        *("edit", picture, "--shift", "colour=-2:0,1", "--replace", f"digit={picture}", "-o", "x.png"),
        *("--set", "colour=-0.5,1e-3", "--resample", "residual=7", "--replace", f"colour={picture}"),
    )
    shift, digit, fixed, resample, colour = options.edits
    assert isinstance(shift, Shift)
    assert (shift.factor, shift.distance, shift.direction) == ("colour", -2.0, [0.0, 1.0])
    assert isinstance(digit, Replace)
    assert (digit.factor, digit.strength) == ("digit", 1.0)
    with open(picture, "rb") as file:
        assert digit.source == file.read()
    assert isinstance(fixed, SetValue)
    assert (fixed.factor, fixed.values) == ("colour", [-0.5, 0.001])
    assert isinstance(resample, Resample)
    assert (resample.factor, resample.seed) == ("residual", 7)
    assert isinstance(colour, Replace)
    assert colour.factor == "colour"


def test_the_address_comes_from_the_option_then_the_environment(monkeypatch):
    monkeypatch.delenv("IIN_ADDRESS", raising=False)
    assert parse("describe").address == "localhost:9000"
    monkeypatch.setenv("IIN_ADDRESS", "")
    assert parse("describe").address == "localhost:9000"
    monkeypatch.setenv("IIN_ADDRESS", "models:1")
    assert parse("describe").address == "models:1"
    assert parse("describe", "--address", "other:2").address == "other:2"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--set", "colour", "expected FACTOR=V1,V2,..., got colour"),
        ("--set", "colour=1,red", "expected FACTOR=V1,V2,..., got colour=1,red"),
        ("--shift", "colour=2", "expected FACTOR=DISTANCE:V1,V2,..., got colour=2"),
        ("--shift", "colour=far:1", "expected FACTOR=DISTANCE:V1,V2,..., got colour=far:1"),
        ("--shift", "colour=1,2:1", "expected FACTOR=DISTANCE:V1,V2,..., got colour=1,2:1"),
        ("--resample", "residual=first", "expected FACTOR=SEED, got residual=first"),
        ("--resample", "residual=-1", "expected FACTOR=SEED, got residual=-1"),
        ("--replace", "=a.png", "expected FACTOR=SOURCE, got =a.png"),
    ],
)
def test_a_wrong_edit_is_a_usage_error_that_says_why(option, value, message, picture, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["edit", picture, option, value, "-o", "x.png"])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["edit", "PICTURE", "--replace", "digit=absent.png", "-o", "x.png"], "iin: absent.png: No such"),
        (["sample", "-o", "x.xyz"], "--output: expected a name that ends in .png, got x.xyz; choose one"),
        (["edit", "PICTURE", "--set", "a=1", "-o", "x"], "--output: expected a name that ends in .png, got x; choose"),
        (["gallery", "PICTURE", "PICTURE", "-o", "x.gif"], "--output: expected a name that ends in .png, got x.gif"),
        (["traverse", "PICTURE", "--random", "1", "-o", "x.jpg"], "ends in .png or .gif or .webp, got x.jpg"),
        (
            ["sample", "-o", "absent/x.png"],
            "a folder that is there and can be written to, got absent/x.png; make /",
        ),
        (["sample", "-o", "PICTURE/x.png"], "that is there and can be written to, got "),
        (["sample", "-o", "FOLDER"], "--output: expected a file, got the folder "),
        (["edit", "PICTURE", "-o", "x.png"], "expected at least one of --replace, --set"),
        (
            ["edit", "PICTURE", "--set", "a=1", "--strength", "1", "-o", "x.png"],
            "--strength: expected a --replace",
        ),
        (["gallery", "PICTURE", "-o", "x.png"], "gallery: expected at least 2 pictures, got 1"),
        (["sample", "--fix", "a=PICTURE", "--fix", "a=PICTURE", "-o", "x.png"], "every factor at most once"),
        (["traverse", "PICTURE", "--to", "PICTURE", "--step", "1", "-o", "x.gif"], "--step: expected --random beside"),
        (["describe", "--timeout", "0"], "timeout: expected seconds above 0"),
        (["describe", "--client-key", "PICTURE"], "tls: expected client_key and client_certificate"),
    ],
)
def test_wrong_usage_exits_with_2_and_a_message(arguments, message, picture, tmp_path, capsys):
    folder = tmp_path / "x.png"
    folder.mkdir()
    words = [argument.replace("PICTURE", picture).replace("FOLDER", str(folder)) for argument in arguments]
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_no_picture_is_named(tmp_path, capsys):
    path = tmp_path / "notes.png"
    path.write_text("not a picture")
    assert main(["interpret", str(path)]) == 2
    assert capsys.readouterr().err == f"iin: {path}: expected a PNG, JPEG or WebP file, got something else\n"


def test_a_picture_with_more_text_than_pillow_reads_is_no_wrong_usage(tmp_path, picture, capsys):
    path, plain = tmp_path / "text.png", Path(picture).read_bytes()
    text = b"zTXtnote\0\0" + zlib.compress(bytes(2**22))
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    path.write_bytes(plain[:33] + chunk + plain[33:])  # behind the header
    assert main(["interpret", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"iin: {path}: Decompressed data too large")
    assert error.count("\n") == 1


def test_a_failed_call_exits_with_1_and_one_line(capsys):
    assert main(["describe", "--address", "localhost:1"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("iin: nothing answers at localhost:1; is the service running")
    assert captured.err.count("\n") == 1


def test_tls_that_the_service_does_not_have_is_told_in_one_line():
    with serving(Drawing()) as address:
        words = [sys.executable, "-m", "iin_command", "describe", "--tls", "--address", address]
        result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "TLS on at both ends or at none? (" in result.stderr
    assert result.stderr.count("\n") == 1


def test_certificates_that_are_none_are_told_as_such(tmp_path, capsys):
    junk = tmp_path / "junk.pem"
    junk.write_text("-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n")
    with serving(Drawing()) as address:
        assert main(["describe", "--root-certificates", str(junk), "--address", address]) == 1
    assert capsys.readouterr().err.startswith("iin: tls: expected certificates, a key that belongs to")


def test_a_picture_at_fault_is_named_whichever_call_it_was_in(picture, tmp_path, monkeypatch, capsys):
    other = tmp_path / "other.png"
    other.write_bytes(Path(picture).read_bytes())
    monkeypatch.setattr(cli, "describe_interpretations", lambda names, model, found: ", ".join(names))
    with serving(Drawing()) as address:
        assert main(["interpret", picture, picture, str(other), "--address", address]) == 1
    told = capsys.readouterr()
    assert told.out == f"{picture}, {picture}\n"
    assert told.err.startswith(f"iin: {other}: inputs[0].encoded_image: expected another size")
    with serving(Drawing("decoder")) as address:
        words = ["gallery", picture, picture, str(other), "-o", str(tmp_path / "x.png")]
        assert main([*words, "--address", address]) == 1
    assert f"\niin: {other}: inputs[0].encoded_image: expected another size" in capsys.readouterr().err


def test_responses_and_models_are_told_as_json(picture, capsys):
    with serving(Drawing("head")) as address:
        assert main(["respond", picture, "--json", "--address", address]) == 0
        told = json.loads(capsys.readouterr().out)
        assert main(["models", "--json", "--address", address]) == 0
        (model,) = json.loads(capsys.readouterr().out)
    digit = {
        "mean_probabilities": [0.5, 0.5],
        "probability_deviations": [0.25, 0.125],
        "class_deviations": 0.5,
        "class_changes": 0.75,
    }
    assert told["items"] == [{"image": picture, "probabilities": [0.25, 0.75], "factors": {"digit": digit}}]
    assert set(told["timing"]) == {"total_ms", "queue_ms", "codec_ms", "stages"}
    assert (model["application"], model["state"], model["model"]["name"]) == ("mine", "RUNNING", "mine")


@pytest.mark.parametrize(("words", "sent"), [([], None), (["--truncation", "1.5"], 1.5)])
def test_samples_are_truncated_where_that_is_asked_for(words, sent, tmp_path):
    service = Drawing("decoder")
    with serving(service) as address:
        assert main(["sample", "-n", "1", *words, "-o", str(tmp_path / "x.png"), "--address", address]) == 0
    (request,) = service.samples
    assert (request.truncation if request.HasField("truncation") else None) == sent


def test_pictures_of_many_pixels_are_read_and_written_without_a_warning(picture, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12)  # Pillow warns of the picture's 16, and refuses a grid of two
    words = ["edit", picture, picture, "--set", "a=1", "-o", str(tmp_path / "x.png")]
    with serving(Drawing("decoder")) as address, warnings.catch_warnings(action="error"):
        assert main([*words, "--address", address]) == 0


DRAWN = [
    ["edit", "PICTURE", "--set", "a=1"],
    ["edit", "PICTURE", "PICTURE", "--set", "a=1"],
    ["sample", "-n", "2"],
    ["traverse", "PICTURE", "--random", "1", "-n", "2"],
]


@pytest.mark.parametrize(
    ("arguments", "ending"), [*((words, "png") for words in DRAWN), (DRAWN[-1], "gif"), (DRAWN[-1], "webp")]
)
def test_what_was_written_is_told_with_its_size(arguments, ending, picture, tmp_path, capsys):
    out = tmp_path / f"out.{ending}"
    words = [word.replace("PICTURE", picture) for word in arguments]
    with serving(Drawing("encoder", "decoder")) as address:
        assert main([*words, "-o", str(out), "--address", address]) == 0
    with Image.open(out) as written:
        assert capsys.readouterr().out == f"{out}: {written.width} x {written.height} pixels\n"


class Failing(Drawing):
    """Its streams break off."""

    def Sample(self, request, context):
        yield next(super().Sample(request, context))
        context.abort(grpc.StatusCode.INTERNAL, "broken")


@pytest.mark.parametrize("fault", ["of the call", "of the disk", "an interrupt"])
def test_a_picture_is_written_whole_or_the_one_before_stays(fault, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.png"
    out.write_bytes(b"before")

    def half(path, data):
        with path.open("wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt if fault == "an interrupt" else OSError("no space left")

    if fault != "of the call":
        monkeypatch.setattr(Path, "write_bytes", half)
    with serving(Failing("decoder") if fault == "of the call" else Drawing("decoder")) as address:
        code = main(["sample", "-n", "2", "-o", str(out), "--address", address])
    assert code == {"of the call": 1, "of the disk": 2, "an interrupt": 130}[fault]
    told = {
        "of the call": "iin: broken (INTERNAL)\n",
        "of the disk": f"iin: --output: cannot write {out}: no space left\n",
        "an interrupt": "",
    }
    assert capsys.readouterr().err == told[fault]
    assert out.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [out]


def test_a_picture_is_written_where_a_link_leads(tmp_path):
    kept, link = tmp_path / "kept.png", tmp_path / "link.png"
    link.symlink_to(kept)
    with serving(Drawing("decoder")) as address:
        assert main(["sample", "-n", "1", "-o", str(link), "--address", address]) == 0
    assert link.is_symlink()
    assert kept.stat().st_size > 0


def test_where_a_link_leads_is_looked_at_before_the_service_is_asked(tmp_path, capsys):
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "absent" / "x.png")
    assert main(["sample", "-o", str(link), "--address", "localhost:1"]) == 2
    assert f"make {tmp_path / 'absent'}, or name another" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x.png", f"{'x' * 251}.png"])
def test_a_picture_that_is_replaced_leaves_its_mode_and_the_files_beside_it(name, tmp_path):
    out, other = tmp_path / name, tmp_path / ".x.partial.png"
    out.touch(mode=0o600)
    other.touch()
    with serving(Drawing("decoder")) as address:
        assert main(["sample", "-n", "1", "-o", str(out), "--address", address]) == 0
    assert out.stat().st_size > 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert set(tmp_path.iterdir()) == {out, other}


def test_links_in_a_circle_do_no_harm(tmp_path):
    one, other = tmp_path / "one.png", tmp_path / "other.png"
    one.symlink_to(other)
    other.symlink_to(one)
    with serving(Drawing("decoder")) as address:
        assert main(["sample", "-n", "1", "-o", str(one), "--address", address]) == 0
    assert one.stat().st_size > 0


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_written_to_and_stays(linked, tmp_path):
    pipe, link = tmp_path / "pipe.png", tmp_path / "link.png"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with serving(Drawing("decoder")) as address:
        assert main(["sample", "-n", "1", "-o", str(link if linked else pipe), "--address", address]) == 0
    assert os.read(reader, 9).startswith(b"\x89PNG")
    os.close(reader)
    assert pipe.is_fifo()


def test_a_command_that_takes_long_says_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "_TELL_S", 0.0)
    with serving(Drawing("decoder")) as address:
        assert main(["sample", "-n", "3", "-o", str(tmp_path / "x.png"), "--address", address]) == 0
    assert capsys.readouterr().err == "iin: 1 of 3 pictures\niin: 2 of 3 pictures\n"


def test_who_wants_no_more_of_what_is_printed_is_told_nothing(tmp_path):
    service = Drawing()
    service.models = 5000
    with serving(service) as address:
        words = [sys.executable, "-m", "iin_command", "models", "--address", address]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.read(1)
        process.stdout.close()
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (141, b"")


def test_a_name_that_stdout_cannot_encode_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with serving(Drawing("decoder")) as address:
        assert main(["sample", "-n", "1", "-o", str(tmp_path / "é.png"), "--address", address]) == 0
    assert b"\\xe9.png: 56 x 56 pixels" in sys.stdout.buffer.getvalue()


def test_a_stdout_that_takes_every_name_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape"))
    with serving(Drawing()) as address:
        assert main(["models", "--address", address]) == 0
    assert sys.stdout.errors == "surrogateescape"


def test_where_no_model_is_served_it_is_said(capsys):
    service = Drawing()
    service.models = 0
    with serving(service) as address:
        assert main(["models", "--address", address]) == 0
    assert capsys.readouterr().out == "no model is served\n"


def test_a_closed_stdout_is_no_failure(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # what Python makes of one
    with serving(Drawing()) as address:
        assert main(["models", "--address", address]) == 0


class Waiting(Drawing):
    """Answers one call for two pictures, and no other."""

    def __init__(self):
        super().__init__()
        self.waits = threading.Event()

    def Interpret(self, request, context):
        if len(request.inputs) == 1:
            gone = threading.Event()
            context.add_callback(gone.set)
            self.waits.set()
            gone.wait()
        zeros, some = pb.Tensor(shape=[2, 1], data=bytes(8)), [0.0, 0.0]
        return pb.InterpretResponse(latents=zeros, factors=zeros, log_likelihoods=some, log_likelihood_quantiles=some)


def test_an_interrupt_ends_a_process_as_a_shell_expects_and_leaves_what_was_found(picture):
    service = Waiting()
    with serving(service) as address:
        words = [sys.executable, "-m", "iin_command", "interpret", *[picture] * 3, "--address", address]
        buffered = os.environ | {"PYTHONUNBUFFERED": ""}
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered)
        assert service.waits.wait(timeout=60)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (-signal.SIGINT, b"")
    assert out.count(picture.encode()) == 4  # each in the table and at the head of its factors


def test_an_interrupt_at_the_start_is_no_mistake(tmp_path, monkeypatch):
    (tmp_path / "grpc.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = subprocess.run([sys.executable, "-m", "iin_command", "models"], capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (-signal.SIGINT, b"")


@pytest.mark.parametrize("arguments", [*DRAWN, ["gallery", "PICTURE", "PICTURE"]])
def test_a_model_that_draws_nothing_is_told_with_the_command_that_suits_it(arguments, picture, tmp_path, capsys):
    words = [word.replace("PICTURE", picture) for word in arguments]
    with serving(Drawing("encoder", "transform")) as address:
        assert main([*words, "-o", str(tmp_path / "out.png"), "--address", address]) == 2
    assert capsys.readouterr().err == (
        f"iin: {words[0]}: expected a model with a decoder, which draws pictures, got mine 3 without one; "
        "iin interpret shows its factors\n"
    )
    assert not (tmp_path / "out.png").exists()
