"""Wrong configuration stops the start, and the error names the field."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq
from bus_helpers import MESH

from atoll_broker import keys, mesh
from atoll_broker.errors import ConfigurationError
from atoll_broker.options import Options

ENVIRONMENT = {
    "ATOLL_SLOT": "broker/1",
    "ATOLL_HOST": "127.0.0.1",
    "ATOLL_PORT": "8100",
    "ATOLL_DATA": "data",
    "ATOLL_KEYS": "keys",
    "ATOLL_BUS": "tcp://127.0.0.1:8086",
    "ATOLL_MESH": "mesh.toml",
}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[bus]\nspeed = 1", "bus"),
        ("[bus]\nheartbeat_seconds = 'x'", "bus.heartbeat_seconds"),
        ("[bus]\nheartbeat_seconds = 0", "bus.heartbeat_seconds"),
        ("[bus]\nevent_bytes_max = 2000000", "event_bytes_max"),
        ("[bus]\npublish_events_max = 1", "publish_events_max"),
        ("[grant.a]\npublish = ['a.*.b']", "grant.a.publish[0]"),
        ("[grant.a]\nannounce = ['orders']", "grant.a.announce[0]"),
        ("[grant.a]\nwatch = ['policy']", "grant.a.watch[0]"),
        ("[grant.a]\nsuper = true", "grant.a"),
        ("[grant.A]\nadmin = true", "grant.A"),
        ("[grant.a]\nannounce = ['/x']\n[grant.b]\nannounce = ['/x']", "grant.b.announce"),
        ("[group.a]\ntopics = ['a.b.v1']", "group.a.part"),
        ("[group.a]\npart = 'a'\ntopics = ['a.*']", "group.a.topics[0]"),
        ("[group.a]\npart = 'a'\ntopics = []", "group.a.topics"),
        ("[group.a]\npart = 'a'\ntopics = ['a.b.v1']\non_dead = 'stop'", "group.a.on_dead"),
        ("[group.a]\npart = 'a'\ntopics = ['a.b.v1']\nbackoff_seconds = [1]", "group.a.backoff_seconds"),
        ("[group_defaults]\npart = 'a'", "group_defaults.part"),
        ("bus = 7", "bus"),
        ("[bus", "mesh.toml"),
    ],
)
def test_mesh_errors_name_the_field(text: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named.replace("[", r"\[")):
        mesh.parse(text)


def test_tables_of_others_are_not_read_and_defaults_apply() -> None:
    parsed = mesh.parse(MESH + "\n[gateway]\nwhatever = 1\n[part.x]\ny = 2\n")
    assert parsed.groups["bank"].lease_seconds == 10
    assert parsed.groups["mail"].on_dead == "skip"
    assert parsed.identities == {"shop", "bank", "auth", "gateway", "control", "mail"}


def test_the_systems_own_mesh_is_valid() -> None:
    parsed = mesh.load(Path(__file__).parent.parent.parent / "mesh.toml")
    assert parsed.groups["orders"].part == "orders"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ATOLL_SLOT", "broker"),
        ("ATOLL_HOST", ""),
        ("ATOLL_PORT", "http"),
        ("ATOLL_PORT", "70000"),
        ("ATOLL_DATA", ""),
        ("ATOLL_BUS", "127.0.0.1:8086"),
        ("ATOLL_LOG_LEVEL", "loud"),
    ],
)
def test_environment_errors_name_the_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Options.from_environment({**ENVIRONMENT, name: value})


def test_a_good_environment_is_taken() -> None:
    options = Options.from_environment(ENVIRONMENT)
    assert (options.name, options.port, options.log_level) == ("broker", 8100, "info")


def test_a_bad_key_file_is_named_and_not_shown(tmp_path: Path) -> None:
    public, _ = zmq.curve_keypair()
    (tmp_path / "shop.public").write_bytes(public + b"\n")
    assert list(keys.read_allow_list(tmp_path).identities.values()) == ["shop"]
    (tmp_path / "bank.public").write_bytes(public)
    with pytest.raises(ConfigurationError, match="same key"):
        keys.read_allow_list(tmp_path)
    (tmp_path / "bank.public").write_text("secret")
    with pytest.raises(ConfigurationError, match=r"bank\.public") as caught:
        keys.read_allow_list(tmp_path)
    assert "secret" not in str(caught.value)
