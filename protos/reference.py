"""Write docs/API.md, the reference of the API, from the comments of the .proto files, or check it (--check)."""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

ROOT = Path(__file__).resolve().parent
PAGE = ROOT.parent / "docs" / "API.md"
PROTOS = ["iin_api/v1/interpretation.proto", "iin_api/inference/grpc_service.proto"]
HEAD = """# API

Made from the comments of the `.proto` files below `protos/` by `make protos`; change those. [CLIENTS.md](CLIENTS.md)
shows calls from Python, Go and a shell.
"""
# Numbers of fields in descriptor.proto, of which the paths of comments are made.
MESSAGES, ENUMS, SERVICES, FIELDS, NESTED, VALUES, METHODS = 4, 5, 6, 2, 3, 2, 2
Path_ = tuple[int, ...]


def descriptors() -> FileDescriptorSet:
    """The .proto files with their comments."""
    with tempfile.NamedTemporaryFile() as file:
        words = ["--include_source_info", f"--descriptor_set_out={file.name}", f"-I{ROOT}", *PROTOS]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *words], check=True)
        return FileDescriptorSet.FromString(Path(file.name).read_bytes())


class Page:
    """The part of one .proto file."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self.file = file
        self.comments = {tuple(one.path): one.leading_comments for one in file.source_code_info.location}

    def text(self, *path: int) -> str:
        """The comment at a path, its lines joined; an empty line begins a paragraph."""
        comment = self.comments.get(path, "").replace("|", r"\|")  # a bare one would end the cell of a table
        paragraphs = comment.strip().split("\n\n")
        return "\n\n".join(" ".join(line.strip() for line in one.splitlines()) for one in paragraphs)

    def lines(self) -> Iterator[str]:
        """The part as Markdown."""
        for index, service in enumerate(self.file.service):
            yield from self.service(service, (SERVICES, index))
        for index, message in enumerate(self.file.message_type):
            yield from self.message(message, message.name, (MESSAGES, index))
        for index, enum in enumerate(self.file.enum_type):
            yield from self.enum(enum, (ENUMS, index))

    def service(self, service: ServiceDescriptorProto, path: Path_) -> Iterator[str]:
        yield f"\n## {self.file.package}.{service.name}\n\n{self.text(*path)}\n"
        yield "| RPC | takes | gives | |\n|---|---|---|---|"
        for index, method in enumerate(service.method):
            takes = ("stream of " if method.client_streaming else "") + self.link(method.input_type)
            gives = ("stream of " if method.server_streaming else "") + self.link(method.output_type)
            yield f"| `{method.name}` | {takes} | {gives} | {self.text(*path, METHODS, index)} |"

    def message(self, message: DescriptorProto, name: str, path: Path_) -> Iterator[str]:
        if message.options.map_entry:
            return
        yield f"\n### {name}\n\n{self.text(*path)}\n"
        if message.field:
            yield "| field | type | |\n|---|---|---|"
        for index, field in enumerate(message.field):
            yield f"| `{field.name}` | {self.type(field, message)} | {self.text(*path, FIELDS, index)} |"
        for index, nested in enumerate(message.nested_type):
            yield from self.message(nested, f"{name}.{nested.name}", (*path, NESTED, index))

    def type(self, field: FieldDescriptorProto, message: DescriptorProto) -> str:
        entries = [one.name for one in message.nested_type if one.options.map_entry]
        if field.type_name.rpartition(".")[2] in entries:
            return "map"
        scalar = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        kind = self.link(field.type_name) if field.type_name else scalar
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            return f"repeated {kind}"
        if field.proto3_optional:
            return f"optional {kind}"
        if field.HasField("oneof_index"):
            return f"{kind}, one of `{message.oneof_decl[field.oneof_index].name}`"
        return kind

    def enum(self, enum: EnumDescriptorProto, path: Path_) -> Iterator[str]:
        yield f"\n### {enum.name}\n\n{self.text(*path)}\n\n| value | |\n|---|---|"
        for index, value in enumerate(enum.value):
            yield f"| `{value.name}` | {self.text(*path, VALUES, index)} |"

    def link(self, name: str) -> str:
        """A link to a message or enum of this page."""
        own = name.removeprefix(f".{self.file.package}.")
        return f"[{own}](#{own.replace('.', '').lower()})"


def page() -> str:
    """The whole reference."""
    parts = [HEAD, *("\n".join(Page(file).lines()) for file in descriptors().file)]
    return "\n".join(parts).rstrip() + "\n"


def main() -> int:
    """Write the page, or say that it is not fresh."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the page is not fresh")
    made = page()
    if not parser.parse_args().check:
        PAGE.write_text(made)
    elif not PAGE.exists() or PAGE.read_text() != made:
        print(f"docs/{PAGE.name}: not what the comments of the .proto files give; run make protos", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
