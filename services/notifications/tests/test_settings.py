"""Settings: what is read, and that what is wrong stops the start by name."""

from pathlib import Path

import pytest

import atoll
from atoll_notifications.settings import Settings


def read(tmp_path: Path, **values: str) -> Settings:
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "empty").write_text("\n")
    known = {f"NOTIFICATIONS_{name}": text.replace("TMP", str(tmp_path)) for name, text in values.items()}
    return Settings.from_environment(tmp_path, known | {"PATH": "/bin"})


def test_without_any_there_is_a_maildir_beside_the_database_and_no_smtp(tmp_path: Path) -> None:
    settings = read(tmp_path)
    assert (settings.maildir, settings.smtp) == (tmp_path / "maildir", None)


def test_all_of_them(tmp_path: Path) -> None:
    settings = read(
        tmp_path, MAILDIR="TMP/m", FROM="shop@example.org", SMTP="mail.example.org:587", SMTP_SECURITY="starttls",
        SMTP_USER="shop", SMTP_PASSWORD_FILE="TMP/password", SMTP_TIMEOUT_SECONDS="2.5", SMTP_GIVE_UP_SECONDS="60",
    )  # fmt: skip
    assert (settings.maildir, settings.sender) == (tmp_path / "m", "shop@example.org")
    smtp = settings.smtp
    assert smtp is not None
    assert smtp.login is not None
    assert (smtp.host, smtp.port, smtp.security) == ("mail.example.org", 587, "starttls")
    assert (smtp.login.user, smtp.login.password) == ("shop", "secret")
    assert (smtp.timeout_seconds, smtp.give_up_seconds) == (2.5, 60)
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(("text", "host", "port"), [("127.0.0.1:25", "127.0.0.1", 25), ("[::1]:2525", "::1", 2525)])
def test_servers(tmp_path: Path, text: str, host: str, port: int) -> None:
    smtp = read(tmp_path, SMTP=text).smtp
    assert smtp is not None
    assert (smtp.host, smtp.port) == (host, port)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"SMTP": "mail.example.org"}, "NOTIFICATIONS_SMTP is 'mail"),
        ({"SMTP": "mail:0"}, "NOTIFICATIONS_SMTP is 'mail"),
        ({"SMTP": "mail:70000"}, "NOTIFICATIONS_SMTP is 'mail"),
        ({"SMTP": "ma il:25"}, "NOTIFICATIONS_SMTP is"),
        ({"SMTP": "m:25", "SMTP_SECURITY": "ssl"}, "NOTIFICATIONS_SMTP_SECURITY.*none, starttls, tls"),
        ({"SMTP_SECURITY": "tls"}, "NOTIFICATIONS_SMTP_SECURITY is set, but NOTIFICATIONS_SMTP is not"),
        ({"SMTP": "m:25", "SMTP_USER": "u", "SMTP_SECURITY": "tls"}, "expected both"),
        ({"SMTP": "m:25", "SMTP_USER": "u", "SMTP_PASSWORD_FILE": "TMP/password"}, "in the clear"),
        ({"SMTP": "m:25", "SMTP_SECURITY": "tls", "SMTP_USER": "u", "SMTP_PASSWORD_FILE": "TMP/x"}, "PASSWORD_FILE"),
        ({"SMTP": "m:25", "SMTP_SECURITY": "tls", "SMTP_USER": "u", "SMTP_PASSWORD_FILE": "TMP/empty"}, "empty"),
        ({"SMTP": "m:25", "SMTP_CA_FILE": "TMP/x"}, "NOTIFICATIONS_SMTP_CA_FILE is set"),
        ({"SMTP": "m:25", "SMTP_SECURITY": "tls", "SMTP_CA_FILE": "TMP/password"}, "PEM certificates"),
        ({"SMTP": "m:25", "SMTP_TIMEOUT_SECONDS": "0"}, "NOTIFICATIONS_SMTP_TIMEOUT_SECONDS.*0.1 to 300"),
        ({"SMTP": "m:25", "SMTP_GIVE_UP_SECONDS": "1e3"}, "NOTIFICATIONS_SMTP_GIVE_UP_SECONDS"),
        ({"FROM": "nobody"}, "NOTIFICATIONS_FROM"),
        ({"FROM": "a@b.example, c@d.example"}, "NOTIFICATIONS_FROM"),
        ({"FROM": "a@b.example\nBcc: x@y.example"}, "NOTIFICATIONS_FROM"),
        ({"SMPT": "m:25"}, "NOTIFICATIONS_SMPT is not a setting"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
def test_what_is_wrong_stops_the_start_and_names_the_variable(
    tmp_path: Path, values: dict[str, str], named: str
) -> None:
    with pytest.raises(atoll.ConfigurationError, match=named):
        read(tmp_path, **values)


def test_a_password_in_the_servers_address_is_refused_and_not_told(tmp_path: Path) -> None:
    with pytest.raises(atoll.ConfigurationError, match="NOTIFICATIONS_SMTP_USER") as error:
        read(tmp_path, SMTP="shop:s3cret@mail.example.org:25")
    assert "s3cret" not in str(error.value)
