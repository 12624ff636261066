"""The descriptors are those of the .proto files, and these agree with what clients have."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet
from tritonclient.grpc import service_pb2

from halfcore.rpc.messages import DESCRIPTORS, message

ROOT = Path(__file__).parents[3]
FOLDER = DESCRIPTORS.parent


def described() -> FileDescriptorSet:
    """What the server reads."""
    return FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())


def test_the_descriptors_are_what_just_proto_writes(tmp_path: Path) -> None:
    """The recipe's command, with another file to write."""
    recipe = (ROOT / "justfile").read_text().partition("\nproto:\n")[2].partition("\n\n")[0]
    arguments = recipe.replace("\\\n", " ").partition("-m grpc_tools.protoc")[2]
    arguments = arguments.replace("services.binpb", str(tmp_path / "services.binpb"))
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *arguments.split()], cwd=FOLDER, check=True
    )
    written = FileDescriptorSet.FromString((tmp_path / "services.binpb").read_bytes())
    assert written == described(), "call `just proto`"


def fields(prefix: str, one: DescriptorProto) -> Iterator[tuple[str, tuple[int, int, int, str]]]:
    """Every field of a message and of those within it, with what it is on the wire."""
    name = f"{prefix}.{one.name}"
    for field in one.field:
        yield (
            f"{name}.{field.name}",
            (field.number, field.type, field.label, field.type_name),
        )
    for nested in one.nested_type:
        yield from fields(name, nested)


def test_every_field_is_a_client_s_too() -> None:
    """Under the same number and of the same type in Triton's client, whose file is the protocol's
    with more in it."""
    theirs = descriptor_pb2.FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(theirs)
    (ours,) = [file for file in described().file if file.package == "inference"]
    known = dict(pair for one in theirs.message_type for pair in fields("", one))
    found = dict(pair for one in ours.message_type for pair in fields("", one))
    assert len(found) > 40
    assert found == {name: known.get(name) for name in found}
    (service,) = ours.service
    (other,) = theirs.service
    assert service.name == other.name
    calls = {method.name: (method.input_type, method.output_type) for method in other.method}
    for method in service.method:
        assert calls[method.name] == (method.input_type, method.output_type)


@pytest.mark.parametrize(
    "name", ["inference.ModelInferRequest", "grpc.health.v1.HealthCheckRequest"]
)
def test_a_client_s_messages_are_not_ours(name: str) -> None:
    """Both live in one process, although their names are the same."""
    assert message(name) is message(name)
    assert message(name) is not service_pb2.ModelInferRequest
