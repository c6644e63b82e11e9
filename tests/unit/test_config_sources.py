"""Which of several sources a setting takes its value from."""

import json
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rookery.config import load
from rookery.config.settings import FlagValue
from tests.unit.configs import HOME, SPEC, Toml, faults, loaded

# For each setting some values: as text, as TOML, and as Settings has them. Hosts are loopback, so any mix is allowed.
VALUES: dict[str, list[tuple[str, object, object]]] = {
    "host": [("::1", "::1", "::1"), ("localhost", "localhost", "localhost"), ("127.9.9.9", "127.9.9.9", "127.9.9.9")],
    "port": [("0", 0, 0), ("8080", 8080, 8080), ("65535", 65535, 65535)],
    "data": [("/srv/a", "/srv/a", Path("/srv/a")), ("here", "here", Path("here"))],
    "store": [("sqlite", "sqlite", "sqlite"), ("cassandra", "cassandra", "cassandra"), ("redis", "redis", "redis")],
    "store.servers": [
        ("a:1", ["a:1"], ("a:1",)),
        ("a:9042,[::1]:9042", ["a:9042", "[::1]:9042"], ("a:9042", "[::1]:9042")),
    ],
    "store.datacenter": [("", "", ""), ("dc1", "dc1", "dc1")],
    "store.keyspace": [("rookery", "rookery", "rookery"), ("r2_d2", "r2_d2", "r2_d2")],
    "store.replication": [("1", "1", "1"), ("dc1:3, dc2:2", "dc1:3,dc2:2", "dc1:3,dc2:2")],
    "store.user": [("", "", "")],  # it goes with the password, and is tried below
    "store.password": [("", "", "")],
    "store.password_file": [("", "", "")],  # it is read, and is tried below
    "store.tls_authority": [("/etc/ca.pem", "/etc/ca.pem", "/etc/ca.pem")],
    "store.tls_certificate": [("", "", "")],
    "store.tls_key": [("", "", "")],
    "store.alone": [("off", "off", "off"), ("on", "on", "on")],
    "cache": [("memory", "memory", "memory")],
    "cache.servers": [
        ("a:1", ["a:1"], ("a:1",)),
        ("10.0.0.5:11211,[::1]:2", ["10.0.0.5:11211", "[::1]:2"], ("10.0.0.5:11211", "[::1]:2")),
    ],
    "cache.bytes": [("0", 0, 0), ("64MB", "64MB", 64_000_000), ("1 GiB", "1 GiB", 2**30)],
    "ranking": [("sqlite", "sqlite", "sqlite"), ("redis", "redis", "redis")],
    "ranking.servers": [("r:6379", ["r:6379"], ("r:6379",)), ("r:1,s:2", ["r:1", "s:2"], ("r:1", "s:2"))],
    "ranking.keyspace": [("rookery", "rookery", "rookery"), ("r2_d2", "r2_d2", "r2_d2")],
    "ranking.user": [("", "", "")],
    "ranking.password": [("", "", ""), ("secret", "secret", "secret")],
    "ranking.password_file": [("", "", "")],
    "ranking.tls_authority": [("/etc/ca.pem", "/etc/ca.pem", "/etc/ca.pem")],
    "ranking.tls_certificate": [("", "", "")],
    "ranking.tls_key": [("", "", "")],
    "auth": [("open", "open", "open"), ("token", "token", "token")],
    "open_on_network": [("yes", True, True), ("0", False, False)],
    "reads": [("token", "token", "token"), ("public", "public", "public")],
    "registration": [("closed", "closed", "closed"), ("open", "open", "open")],
    "rate_limit": [("off", "off", "off"), ("on", "on", "on")],
    "rate_limit.token": [("1", 1, 1), ("60", 60, 60)],
    "rate_limit.address": [("1", 1, 1), ("90", 90, 90)],
    "rate_limit.registrations": [("1", 1, 1), ("90", 90, 90)],
    "reserved_names": [("", [], ()), ("acme, Press_1", ["acme", "Press_1"], ("acme", "Press_1"))],
    "cors_origins": [
        ("", [], ()),
        ("https://a.org, http://b:81", ["https://a.org", "http://b:81"], ("https://a.org", "http://b:81")),
    ],
    "trusted_proxies": [("10.0.0.0/8,::1", ["10.0.0.0/8", "::1"], (ip_network("10.0.0.0/8"), ip_network("::1")))],
    "allowed_hosts": [("a.org,b", ["a.org", "b"], ("a.org", "b")), ("", [], ())],
    "max_followees": [("1", 1, 1), ("7", 7, 7)],
    "max_chain": [("1", 1, 1), ("7", 7, 7)],
    "pull_threshold": [("auto", "auto", "auto"), ("off", "off", "off"), ("0", 0, 0), ("500", 500, 500)],
    "log.format": [("json", "json", "json"), ("pretty", "pretty", "pretty")],
    "log.level": [("debug", "debug", "debug"), ("error", "error", "error")],
    "log.server": [("", "", ""), ("127.0.0.1:5140", "127.0.0.1:5140", "127.0.0.1:5140")],
    "traces.server": [("", "", ""), ("127.0.0.1:5140", "127.0.0.1:5140", "127.0.0.1:5140")],
    "log.tls_authority": [("", "", ""), ("/ca.pem", "/ca.pem", "/ca.pem")],
    "metrics.host": [("127.0.0.1", "127.0.0.1", "127.0.0.1"), ("::1", "::1", "::1")],
    "metrics.port": [("0", 0, 0), ("9464", 9464, 9464)],
    "drain_seconds": [("0", 0, 0), ("5", 5, 5)],
}
SOME = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in VALUES.items()})


def toml_key(name: str) -> str:
    """`cache` and `cache.bytes` can't both be keys of a file: a kind with options is `cache.kind`."""
    return f"{name}.kind" if any(other.startswith(f"{name}.") for other in SPEC) else name


@given(in_file=SOME, in_environment=SOME, in_flags=SOME)
def test_the_highest_source_that_gives_a_setting_wins_and_is_named(
    tmp_path_factory: pytest.TempPathFactory,
    in_file: dict[str, tuple[str, object, object]],
    in_environment: dict[str, tuple[str, object, object]],
    in_flags: dict[str, tuple[str, object, object]],
) -> None:
    file = tmp_path_factory.getbasetemp() / "mixed.toml"
    file.write_text("".join(f"{toml_key(name)} = {json.dumps(value)}\n" for name, (_, value, _) in in_file.items()))

    result = load(
        flags={name: text for name, (text, _, _) in in_flags.items()},
        environ=HOME | {SPEC[name].env: text for name, (text, _, _) in in_environment.items()},
        file=file,
    )

    defaults = loaded()
    for name, spec in SPEC.items():
        value, source = getattr(defaults.settings, spec.attribute), "default"
        if name in in_file:
            value, source = in_file[name][2], str(file)
        if name in in_environment:
            value, source = in_environment[name][2], f"environment {spec.env}"
        if name in in_flags:
            value, source = in_flags[name][2], f"flag {spec.flag}"
        assert (getattr(result.settings, spec.attribute), result.sources[name]) == (value, source)


def test_a_flag_that_was_not_used_leaves_the_setting_to_the_others() -> None:
    result = loaded({"port": None}, {"ROOKERY_PORT": "7000"})
    assert (result.settings.port, result.sources["port"]) == (7000, "environment ROOKERY_PORT")


def test_flags_may_have_been_read_into_values_already() -> None:
    settings = loaded({"port": 0, "open_on_network": True, "cors_origins": ["https://a.org"]}).settings
    assert (settings.port, settings.open_on_network, settings.cors_origins) == (0, True, ("https://a.org",))


def test_an_empty_list_in_a_higher_source_takes_a_lower_ones_entries_away(toml: Toml) -> None:
    file = toml('allowed_hosts = ["a.org"]')
    assert loaded(environ={"ROOKERY_ALLOWED_HOSTS": ""}, file=file).settings.allowed_hosts == ()


def test_every_setting_takes_part() -> None:
    assert VALUES.keys() == SPEC.keys()


# Parts that go together


def test_a_certificate_comes_with_its_key_and_with_whom_to_believe() -> None:
    assert faults({"store.tls_certificate": "/own.pem"}) == (
        "store.tls_certificate: store.tls_key is missing beside it (flag --store-tls-certificate)",
        "store.tls_certificate: store.tls_authority is missing beside it (flag --store-tls-certificate)",
    )
    assert faults({"store.tls_key": "/key.pem"}) == (
        "store.tls_key: store.tls_certificate is missing beside it (flag --store-tls-key)",
    )
    assert faults({"store.user": "ada"}) == ("store.user: store.password is missing beside it (flag --store-user)",)
    assert faults({"ranking.user": "ada"}) == (
        "ranking.user: ranking.password is missing beside it (flag --ranking-user)",
    )
    loaded({"store.tls_certificate": "/own.pem", "store.tls_key": "/key.pem", "store.tls_authority": "/ca.pem"})


def test_what_only_cassandra_asks_for_is_asked_for_cassandra_only() -> None:
    alone: dict[str, FlagValue] = {"store.password": "open sesame"}
    assert faults({"store": "cassandra", **alone}) == (
        "store.password: store.user is missing beside it (flag --store-password)",
    )
    loaded({"store": "redis", **alone})
    ports: dict[str, FlagValue] = {"store.servers": ["a:1", "b:2"]}
    assert faults({"store": "cassandra", **ports}) == ("store.servers: all have the same port (flag --store-servers)",)
    loaded({"store": "redis", **ports})


@pytest.mark.parametrize(("store", "server"), [("cassandra", "127.0.0.1:9042"), ("redis", "127.0.0.1:6379")])
def test_a_store_that_is_not_named_is_at_its_own_port(store: str, server: str) -> None:
    assert loaded({"store": store}).settings.effective_store_servers == (server,)
    assert loaded({"store": store, "store.servers": ["a:1"]}).settings.effective_store_servers == ("a:1",)


def test_a_secret_is_not_in_what_is_printed_of_the_settings() -> None:
    settings = loaded({"store.user": "ada", "store.password": "open sesame"}).settings
    assert settings.store_password == "open sesame"
    assert "sesame" not in repr(settings)


# Secrets

SECRET = "open-sesame"


@pytest.mark.parametrize("name", ["store.password", "ranking.password"])
@pytest.mark.parametrize(
    "value",
    ["{}", "[{!r}]", "{{ open-sesame = 1 }}", "{{ a = {{ b = {!r} }} }}", "12345", "[[{!r}, 12345]]", "2026-11-27"],
)
def test_a_secret_of_the_wrong_type_is_not_shown(name: str, value: str, toml: Toml) -> None:
    file = toml(f"{name} = {value.format(SECRET)}")
    (line,) = faults(file=file)
    for shown in (SECRET, "sesame", "12345", "2026"):
        assert shown not in line.replace(str(file), "")


def test_an_address_with_a_password_is_refused_without_it() -> None:
    for name in ("store.servers", "ranking.servers", "cache.servers"):
        for text in (f"redis://ada:{SECRET}@r:6379", f"ada:{SECRET}@r:6379", f"redis://:{SECRET}@r:6379"):
            for value in (text, [text, "a"]):
                lines = "\n".join(faults({name: value}))
                assert "r:6379" in lines
                assert SECRET not in lines
    assert SECRET not in faults({"log.server": f"x:{SECRET}@h:514"})[0]


@pytest.mark.parametrize("group", ["store", "ranking"])
def test_a_password_may_be_in_a_file_of_its_own(group: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    attribute = f"{group}_password"
    for content in (SECRET, f"{SECRET}\n", f"{SECRET}\r\n"):
        file.write_text(content)
        for found in (
            loaded({f"{group}.password_file": str(file), f"{group}.user": "ada"}),
            loaded(
                environ={f"ROOKERY_{group.upper()}_PASSWORD_FILE": str(file), f"ROOKERY_{group.upper()}_USER": "ada"}
            ),
        ):
            assert getattr(found.settings, attribute) == SECRET
            assert found.sources[f"{group}.password"] == f"{group}.password_file {file}"
            assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not one line of printable characters"),
        (b"\n", "is not one line of printable characters"),
        (b"open-sesame\nand more", "is not one line of printable characters"),
        (b"open-sesame\0", "is not one line of printable characters"),
        (b"open-sesame\xff", "is not UTF-8"),
        (b"open-sesame" * 400, "is longer than 4096 bytes"),
        (None, "can't be read: no such file or directory"),
    ],
)
def test_a_file_that_holds_no_password_is_a_fault_that_shows_none_of_it(
    content: bytes | None, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    given: dict[str, FlagValue] = {"store.password_file": str(file), "store.user": "ada"}
    assert faults(given) == (f"store.password_file: {file} {reason} (flag --store-password-file)",)


def test_a_password_is_given_in_one_way(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(SECRET)
    assert faults({"store.password_file": str(file)}, {"ROOKERY_STORE_PASSWORD": SECRET}) == (
        "store.password_file: store.password is given as well (environment ROOKERY_STORE_PASSWORD); "
        "give one of them (flag --store-password-file)",
    )
