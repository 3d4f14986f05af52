"""Before the first process: the system page, ports, keys and their modes."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest

from atoll_ops import keys, mesh, ports
from atoll_ops.errors import MeshError, OperationError, PortTakenError
from atoll_ops.launch import Plan, variables
from atoll_ops.slots import Slot
from atoll_ops.state import State
from atoll_token import PublicKey, SigningKey

ROOT = Path(__file__).resolve().parents[2]
PAGE = '[part.broker]\npath = "broker"\nport = 20\n[part.orders]\npath = "services/orders"\nport = 22\n'

LOOKERS = (
    '[part.dashboard]\npath = "dashboard"\nkind = "core"\nport = 1\n'
    '[part.jaeger]\npath = "observability/jaeger"\nkind = "tool"\nport = 5\n'
)


def _mesh(tmp_path: Path, text: str = PAGE) -> mesh.Mesh:
    path = tmp_path / "mesh.toml"
    path.write_text(text)
    return mesh.read(path, tmp_path)


# ---- the system page ---------------------------------------------------------------------------------------------


def test_the_repositorys_own_page_is_read() -> None:
    read = mesh.read(ROOT / "mesh.toml", ROOT)
    assert read.parts["gateway"].offset == 0
    assert read.parts["control"].module_arguments == ("atoll_ops", "control")
    assert read.parts["orders"].module_arguments == ("atoll_orders",)


def test_tables_of_others_are_not_looked_into(tmp_path: Path) -> None:
    assert list(_mesh(tmp_path, PAGE + "[grant.orders]\nnonsense = 1\n").parts) == ["broker", "orders"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PAGE + "colour = 1\n", "part.orders.*unknown field `colour`"),
        (PAGE.replace("22", '"22"'), "part.orders.port"),
        (PAGE.replace("22", "300"), r"part.orders.port: expected an offset from 0 to 199, not 300"),
        (PAGE.replace("22", "6"), "part.orders.port: 6 belongs to the bus"),
        (PAGE.replace("22", "5"), "part.orders.port: 5 belongs to jaeger"),
        (PAGE.replace("22", "1"), "part.orders.port: 1 belongs to dashboard"),
        (PAGE.replace("part.orders", "part.dashboard"), "part.dashboard.port: expected 1, not 22"),
        (PAGE.replace("part.orders", "part.jaeger"), "part.jaeger.port: expected 5, not 22"),
        (PAGE.replace("22", "20"), "part.orders.port: 20 belongs to broker"),
        (PAGE + 'kind = "queue"\n', "part.orders.kind"),
        (PAGE + "[part.orders.settings]\nATOLL_PORT = '1'\n", "part.orders.settings.ATOLL_PORT"),
        (PAGE + "[part.orders.settings]\nORDERS_X = 1\n", "part.orders.settings"),
        (PAGE + "[part.Sales]\npath = '.'\nport = 30\n", r"\[part.Sales\]"),
        ("[system]\nnmae = 'x'\n" + PAGE, "system: .*nmae"),
        ("[system]\nname = 'x'\n", "expected at least one"),
        ("[part", "not TOML"),
    ],
)
def test_a_wrong_page_names_the_field(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(MeshError, match=said) as failed:
        _mesh(tmp_path, text)
    assert "\n" not in str(failed.value)


def test_only_refuses_a_name_that_is_not_there(tmp_path: Path) -> None:
    assert list(_mesh(tmp_path).only(["orders"]).parts) == ["orders"]
    with pytest.raises(MeshError, match="no part 'order'"):
        _mesh(tmp_path).only(["order"])


def test_up_is_asked_for_parts_by_what_to_take_and_what_to_leave(tmp_path: Path) -> None:
    page = _mesh(tmp_path, PAGE + LOOKERS)
    assert list(page.choose([], ["jaeger", "dashboard"]).parts) == ["broker", "orders"]
    assert list(page.choose(["orders", "jaeger"], ["jaeger", "broker"]).parts) == ["orders"]
    with pytest.raises(MeshError, match=r"--without: .* no part 'jager'"):
        page.choose([], ["jager"])
    with pytest.raises(MeshError, match="--without orders: leaves no part to start"):
        page.choose(["orders"], ["orders"])


def test_dashboard_and_jaeger_own_the_ports_that_people_know_them_by(tmp_path: Path) -> None:
    page = _mesh(tmp_path, PAGE + LOOKERS)
    assert page.parts["jaeger"].kind == "tool"
    at, known = ports.Ports.of(page, 9000), ports.Ports.of(page, None)
    assert (at.parts["dashboard"], at.parts["jaeger"]) == (9001, 9005)
    assert (known.parts["dashboard"], known.parts["jaeger"]) == (8501, 8085)


# ---- ports -------------------------------------------------------------------------------------------------------


def test_ports_follow_from_the_base(tmp_path: Path) -> None:
    at = ports.Ports.of(_mesh(tmp_path), 9000)
    assert (at.dashboard, at.jaeger, at.otlp_grpc, at.otlp_http, at.bus) == (9001, 9002, 9003, 9004, 9006)
    assert at.parts == {"broker": 9020, "orders": 9022}


def test_without_a_base_the_known_ports_stay(tmp_path: Path) -> None:
    at = ports.Ports.of(_mesh(tmp_path), None)
    assert (at.base, at.dashboard, at.jaeger, at.otlp_grpc, at.otlp_http) == (8080, 8501, 16686, 4317, 4318)
    assert at.parts["broker"] == 8100


def test_free_ports_lie_below_the_ephemeral_range_and_can_be_bound(tmp_path: Path) -> None:
    at = ports.choose(_mesh(tmp_path), 0, None)
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(ports.can_bind(port) and port < lowest for port in (*at.parts.values(), at.bus))
    assert ports.choose(_mesh(tmp_path), 0, at) == at
    assert ports.choose(_mesh(tmp_path), None, at) == at


@pytest.mark.parametrize("base", [1, 80, 65500, -1])
def test_an_impossible_base_is_refused(tmp_path: Path, base: int) -> None:
    with pytest.raises(OperationError, match=f"--ports {base}"):
        ports.choose(_mesh(tmp_path), base, None)


def test_the_bus_port_is_checked_with_the_broker(tmp_path: Path) -> None:
    at = ports.choose(_mesh(tmp_path), 0, None)
    with socket.create_server((ports.HOST, at.bus)):
        ports.check_free(at, ["orders"])
        with pytest.raises(PortTakenError, match=rf"port {at.bus} \(broker, the bus\) is taken by pid .*--ports"):
            ports.check_free(at, ["broker", "orders"])


# ---- keys --------------------------------------------------------------------------------------------------------

PARTS = ("broker", "auth", "gateway", "control", "orders")


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A state directory with keys."""
    made = State(tmp_path / "state")
    made.prepare()
    return made


def _files(state: State) -> dict[str, set[str]]:
    return {folder.name: {path.name for path in folder.iterdir()} for folder in state.keys.iterdir()}


def test_each_part_gets_its_own_secrets_and_the_public_halves_it_needs(state: State) -> None:
    keys.ensure(state, PARTS)
    curve = {"curve.secret", "curve.public"}
    assert _files(state) == {
        "broker": curve | {"clients"},
        "auth": curve | {"broker.public", "root.key", "seed.json", "gateway.pub"},
        "gateway": curve | {"broker.public", "assertion.key", "root.pub"},
        "control": curve | {"broker.public", "gateway.pub", "root.pub"},
        "orders": curve | {"broker.public", "gateway.pub"},
        "dashboard": {"client.json"},  # nobody on the bus
    }
    clients = {path.name for path in (state.keys / "broker" / "clients").iterdir()}
    assert clients == {f"{name}.public" for name in PARTS if name != "broker"}


def test_nobody_else_can_read_any_of_it(state: State) -> None:
    state.write_credentials(ports.Ports.of(_mesh(state.root), 9000), keys.ensure(state, PARTS))
    for path in (state.credentials, state.keys, *state.keys.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_keys_are_made_once(state: State) -> None:
    secrets = keys.ensure(state, PARTS)
    state.write_credentials(ports.Ports.of(_mesh(state.root), 9000), secrets)
    before = {path: path.read_bytes() for path in state.keys.rglob("*") if path.is_file()}
    assert keys.ensure(state, PARTS) == secrets
    assert {path: path.read_bytes() for path in state.keys.rglob("*") if path.is_file()} == before


def test_lost_copies_and_credentials_come_back_the_same(state: State) -> None:
    secrets = keys.ensure(state, PARTS)
    known = (state.keys / "orders" / "gateway.pub").read_bytes()
    (state.keys / "orders" / "gateway.pub").unlink()
    assert keys.ensure(state, PARTS) == secrets  # no credentials.json was written: the seed remembers
    assert (state.keys / "orders" / "gateway.pub").read_bytes() == known


def test_a_new_part_is_let_in(state: State) -> None:
    keys.ensure(state, PARTS)
    keys.ensure(state, [*PARTS, "sales"])
    assert (state.keys / "broker" / "clients" / "sales.public").read_bytes() == (
        state.keys / "sales" / "curve.public"
    ).read_bytes()


def test_keys_are_what_the_token_library_reads(state: State) -> None:
    keys.ensure(state, PARTS)
    for secret, public in (("auth/root.key", "gateway/root.pub"), ("gateway/assertion.key", "orders/gateway.pub")):
        signing = SigningKey.from_pem((state.keys / secret).read_bytes())
        assert PublicKey.from_pem((state.keys / public).read_bytes()).kid == signing.kid
    assert len((state.keys / "orders" / "curve.secret").read_text()) == 41  # 40 characters of Z85 and a newline


def test_the_seed_holds_the_credentials(state: State) -> None:
    secrets = keys.ensure(state, PARTS)
    seed = json.loads((state.keys / "auth" / "seed.json").read_text())
    assert seed["users"] == [{"username": secrets["username"], "password": secrets["password"], "role": "admin"}]
    assert seed["clients"][0]["client_secret"] == secrets["client_secret"]
    assert seed["clients"][0]["scopes"] == ["orders:*", "stock:*", "sales:*"]


def test_the_dashboards_client_reads_operations_and_nothing_else(state: State) -> None:
    keys.ensure(state, [*PARTS, "dashboard", "jaeger"])
    client = json.loads((state.keys / "dashboard" / "client.json").read_text())
    seed = json.loads((state.keys / "auth" / "seed.json").read_text())
    assert seed["clients"][1] == client | {"client_id": "dashboard", "scopes": ["ops:read"]}
    assert not (state.keys / "jaeger").exists()
    assert not list((state.keys / "broker" / "clients").glob("[dj]*"))


def test_a_lost_client_file_comes_back_with_the_secret_that_auth_knows(state: State) -> None:
    keys.ensure(state, PARTS)
    path = state.keys / "dashboard" / "client.json"
    known = path.read_bytes()
    path.unlink()
    keys.ensure(state, PARTS)
    assert path.read_bytes() == known


def test_a_state_directory_of_an_older_release_gets_the_dashboards_client(state: State) -> None:
    secrets = keys.ensure(state, PARTS)
    path = state.keys / "auth" / "seed.json"
    old = json.loads(path.read_text())
    path.write_text(json.dumps(old | {"clients": old["clients"][:1]}))
    (state.keys / "dashboard" / "client.json").unlink()
    assert keys.ensure(state, PARTS) == secrets
    ids = [client["client_id"] for client in json.loads(path.read_text())["clients"]]
    assert ids == ["demo", "dashboard"]


# ---- what a part is told -----------------------------------------------------------------------------------------


def test_a_part_is_told_its_contract_and_nothing_of_the_users_environment(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_USER", "x")
    monkeypatch.setenv("SSL_CERT_FILE", "/certs")
    page = _mesh(state.root, PAGE + '[part.orders.settings]\nORDERS_X = "1"\n')
    plan = Plan(state.root, state, page, ports.Ports.of(page, 9000))
    told = variables(plan, page.parts["orders"], Slot("orders"))
    assert told["ATOLL_SLOT"] == "orders/1"
    assert told["ATOLL_PORT"] == "9022"
    assert told["ATOLL_BUS"] == "tcp://127.0.0.1:9006"
    assert told["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:9004"
    assert told["ORDERS_X"] == "1"
    assert told["SSL_CERT_FILE"] == "/certs"
    assert "SECRET_OF_THE_USER" not in told
    assert "ATOLL_MESH" not in told
    assert "ATOLL_MESH" in variables(plan, page.parts["broker"], Slot("broker"))
    assert plan.site.command(page.parts["orders"])[1:] == ["-m", "atoll_orders"]


def test_the_dashboard_is_told_where_to_ask_and_no_bus(state: State) -> None:
    page = _mesh(state.root, PAGE + LOOKERS)
    plan, part = Plan(state.root, state, page, ports.Ports.of(page, 9000)), page.parts["dashboard"]
    told = variables(plan, part, Slot("dashboard"))
    assert told["ATOLL_PORT"] == "9001"
    assert told["ATOLL_GATEWAY"] == "http://127.0.0.1:9000"
    assert told["ATOLL_JAEGER"] == "http://127.0.0.1:9002"
    assert told["ATOLL_KEYS"] == str(state.keys / "dashboard")
    assert "ATOLL_BUS" not in told
    elsewhere = Plan(state.root, state, page, plan.ports, jaeger="https://jaeger.example")
    assert variables(elsewhere, part, Slot("dashboard"))["ATOLL_JAEGER"] == "https://jaeger.example"
