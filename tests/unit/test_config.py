"""What an operator gets from a mix of defaults, file, environment and flags, and what he is told when it is wrong."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from rookery.config import SPECS, Settings, load, reference
from rookery.config import settings as config
from tests.unit.configs import SPEC, Toml, faults, from_flag, loaded

# Defaults


def test_with_nothing_given_the_server_runs_embedded_and_is_reachable_from_this_machine_only() -> None:
    settings = loaded().settings
    assert (settings.host, settings.port) == ("127.0.0.1", 5000)
    assert (settings.store, settings.cache, settings.ranking) == ("sqlite", "memory", "sqlite")
    assert settings.cache_bytes == 256 * 1024 * 1024
    assert (settings.auth, settings.reads, settings.registration) == ("token", "public", "open")
    assert settings.open_on_network is False
    assert (settings.rate_limit, settings.rate_limit_token, settings.rate_limit_address) == ("on", 1200, 2400)
    assert settings.cors_origins == settings.trusted_proxies == settings.allowed_hosts == ()
    assert (settings.max_followees, settings.max_chain, settings.pull_threshold) == (50_000, 1000, "auto")
    assert (settings.log_format, settings.log_level) == ("auto", "info")


def test_with_nothing_given_every_source_is_default() -> None:
    assert loaded().sources == {spec.name: "default" for spec in SPECS}


def test_settings_built_directly_have_the_same_defaults() -> None:
    direct = loaded().settings
    assert Settings(data=direct.data) == direct


@pytest.mark.parametrize(
    ("user", "environ", "folder"),
    [
        (1000, {"HOME": "/home/ada"}, "/home/ada/.local/state/rookery"),
        (1000, {"HOME": "/home/ada", "XDG_STATE_HOME": "/state"}, "/state/rookery"),
        (1000, {"HOME": "/home/ada", "XDG_STATE_HOME": ""}, "/home/ada/.local/state/rookery"),
        (1000, {"HOME": "/home/ada", "XDG_STATE_HOME": "state"}, "/home/ada/.local/state/rookery"),
        (1000, {}, "/var/lib/rookery"),
        (0, {"HOME": "/root", "XDG_STATE_HOME": "/home/ada/state"}, "/var/lib/rookery"),
    ],
)
def test_data_goes_to_the_users_state_folder_and_for_root_to_var_lib(
    user: int, environ: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert load(flags={}, environ=environ).settings.data == Path(folder)


def test_the_environment_of_the_process_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOKERY_PORT", "7000")
    assert loaded().settings.port == 5000


# The file


@pytest.mark.parametrize(
    "text",
    [
        "cache.bytes = 0",
        "[cache]\nbytes = 0",
        '[cache]\nkind = "memory"\nbytes = 0',
        'cache = {kind = "memory", bytes = 0}',
        '[cache]\nkind = "memory"\nbytes = "0"',
    ],
)
def test_a_kind_and_its_options_may_be_written_as_table_or_as_dotted_keys(text: str, toml: Toml) -> None:
    settings = loaded(file=toml(text)).settings
    assert (settings.cache, settings.cache_bytes) == ("memory", 0)


def test_a_kind_alone_may_be_written_as_a_word(toml: Toml) -> None:
    file = toml('cache = "memory"\nrate_limit = "off"')
    result = loaded(file=file)
    assert result.settings.rate_limit == "off"
    assert result.sources["cache"] == result.sources["rate_limit"] == str(file)


def test_a_table_whose_entries_are_all_commented_out_is_fine(toml: Toml) -> None:
    assert loaded(file=toml('[cache]\n# bytes = 0\n[log]\n# level = "debug"')).settings == loaded().settings


def test_the_default_file_is_read_if_it_exists(tmp_path: Path, toml: Toml, monkeypatch: pytest.MonkeyPatch) -> None:
    file = toml("port = 7000")
    monkeypatch.setattr(config, "DEFAULT_FILE", file)
    assert loaded().sources["port"] == str(file)


def test_the_environment_may_name_the_file_and_the_flag_goes_before_it(tmp_path: Path, toml: Toml) -> None:
    file = toml("port = 7000")
    other = tmp_path / "other.toml"
    other.write_text("port = 8000")
    environ = {"ROOKERY_CONFIG": str(other)}
    assert loaded(environ=environ).settings.port == 8000
    assert loaded(environ=environ, file=file).settings.port == 7000


def test_a_named_file_that_is_missing_is_a_fault_that_says_who_named_it(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    line = f"{missing}: can't be read: No such file or directory"
    assert faults(file=missing) == (f"{line} (flag --config)",)
    assert faults(environ={"ROOKERY_CONFIG": str(missing)}) == (f"{line} (environment ROOKERY_CONFIG)",)


def test_a_file_that_is_a_folder_is_a_fault(tmp_path: Path) -> None:
    assert faults(file=tmp_path) == (f"{tmp_path}: can't be read: Is a directory (flag --config)",)


def test_a_default_file_that_exists_but_can_not_be_read_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path)
    assert faults() == (f"{tmp_path}: can't be read: Is a directory (default)",)


@pytest.mark.parametrize(
    "content",
    [
        b"port = ",
        b"port = 1\nport = 2",
        b'cache = "memory"\ncache.bytes = 0',
        b"\xff",
        b"port = " + b"9" * 5000,
        b"port = " + b"[" * 100_000,
    ],
    ids=["no value", "key twice", "key as value and as table", "not UTF-8", "endless number", "endless nesting"],
)
def test_a_file_that_is_not_toml_is_one_fault(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "rookery.toml"
    file.write_bytes(content)
    (line,) = faults(file=file)
    assert line.startswith(f"{file}: is not TOML: ")
    assert line.endswith("(flag --config)")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prot = 1", "prot: no such setting; did you mean port?"),
        ("Port = 1", "Port: no such setting; did you mean port?"),
        ("[cahce]\nbytes = 0", "cahce.bytes: no such setting; did you mean cache.bytes?"),
        ("[cahce]", "cahce: no such setting; did you mean cache?"),
        ("rate_limit_token = 1", "rate_limit_token: no such setting; did you mean rate_limit.token?"),
        ('"cache.bytes" = 0', '"cache.bytes": no such setting; did you mean cache.bytes?'),
        ("[port]\nnumber = 1", "port.number: no such setting"),
        ("zzz = 1", "zzz: no such setting"),
        ('"two\\nlines" = 1', "two\\nlines: no such setting"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_one_suggested(text: str, line: str, toml: Toml) -> None:
    file = toml(text)
    assert faults(file=file) == (f"{line} ({file})",)


WRONG = {
    "host": ["127", '""', '["127.0.0.1"]'],
    "port": ['"5000"', "true", "5000.0", "nan", "inf", "-1", "65536", "[5000]", "{}", "2026-01-01"],
    "data": ["1", '""', '"~/rookery"', '"a\\u0000b"'],
    "store.kind": ['"mysql"', "true", "{}"],
    "store.servers": ['"a:1"', '["a"]'],
    "ranking.servers": ['"a:1"', "[]", '["a"]'],
    "store.keyspace": ['""', '"Rookery"', '"1st"', '"a-b"', f'"{"a" * 49}"', "1"],
    "store.replication": ["3", '"0"', '"10"', '"dc1"', '"dc1:3,"', '"a b:1"', '"\'x:1"'],
    "store.tls_authority": ['"~/ca.pem"', "1"],
    "store.password": ["1", "[]"],
    "cache.kind": ['"redis"', "1", "{}"],
    "cache.bytes": ["-1", "1.5", "nan", "true", '"1.5 GiB"', '"many"', '"9999999999 TiB"', "9223372036854775808"],
    "auth": ['"Open"', '""', "false"],
    "open_on_network": ['"true"', "1", "0.0"],
    "rate_limit": ["true", '"yes"'],
    "rate_limit.token": ["0", "nan", '"60"'],
    "rate_limit.registrations": ["0", "true"],
    "reserved_names": ['"acme"', '["a b"]', "[1]", '[""]', '["@acme"]'],
    "cors_origins": ['"https://a.org"', "[1]", '[["https://a.org"]]'],
    "trusted_proxies": ["[1]", '["proxy"]', "10"],
    "allowed_hosts": ["{}", '[""]', "[nan]"],
    "max_chain": ["0", "9223372036854775808"],
    "pull_threshold": ["-1", "true", "inf", '"on"', '"5"'],
    "log.format": ['["json"]', '"JSON"'],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_value_of_the_wrong_type_or_size_is_one_fault_that_names_setting_and_file(
    key: str, value: str, toml: Toml
) -> None:
    file = toml(f"{key} = {value}")
    (line,) = faults(file=file)
    assert line.startswith(f"{key.removesuffix('.kind')}: ")
    assert line.endswith(f" ({file})")


# Environment and flags


@pytest.mark.parametrize(
    ("variable", "line"),
    [
        ("ROOKERY_PROT", "ROOKERY_PROT: no such setting; did you mean ROOKERY_PORT?"),
        ("ROOKERY_port", "ROOKERY_port: no such setting; did you mean ROOKERY_PORT?"),
        ("ROOKERY_CACHE_BYTE", "ROOKERY_CACHE_BYTE: no such setting; did you mean ROOKERY_CACHE_BYTES?"),
        ("ROOKERY_CONFIGS", "ROOKERY_CONFIGS: no such setting; did you mean ROOKERY_CONFIG?"),
        ("ROOKERY_XYZZY", "ROOKERY_XYZZY: no such setting"),
    ],
)
def test_an_unknown_rookery_variable_is_refused_and_the_nearest_one_suggested(variable: str, line: str) -> None:
    assert faults(environ={variable: "1"}) == (f"{line} (environment)",)


def test_other_programs_variables_are_ignored() -> None:
    assert loaded(environ={"PORT": "x", "ROOKERYPORT": "x", "XROOKERY_PORT": "x"}).settings.port == 5000


def test_an_unknown_flag_is_refused() -> None:
    assert faults({"prot": "1"}) == ("prot: no such setting; did you mean port? (flags)",)


def test_a_bad_value_is_shown_with_what_was_due_and_where_it_came_from() -> None:
    due = "is not a whole number from 0 to 65535"
    assert faults(environ={"ROOKERY_PORT": "http"}) == (f"port: 'http' {due} (environment ROOKERY_PORT)",)
    assert faults({"port": "70000"}) == (f"port: 70000 {due} (flag --port)",)
    assert faults({"auth": "none"}) == ('auth: \'none\' is not "token" or "open" (flag --auth)',)


# Open mode


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST"])
def test_open_mode_may_listen_on_loopback(host: str) -> None:
    assert loaded({"auth": "open", "host": host}).settings.auth == "open"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "fd00::1", "example.org", "localhost.org"])  # noqa: S104 - on purpose
def test_open_mode_on_the_network_is_refused_unless_asked_for(host: str, toml: Toml) -> None:
    file = toml('auth = "open"')
    assert faults({"host": host}, file=file) == (
        f"auth: open lets anyone act as anyone ({file}), and others can reach host {host} (flag --host); "
        "listen on 127.0.0.1, or set open_on_network to true",
    )
    assert loaded({"host": host, "open_on_network": "yes"}, file=file).settings.host == host


def test_token_mode_may_listen_anywhere() -> None:
    assert loaded({"host": "::"}).settings.host == "::"


def test_open_mode_is_not_judged_by_values_that_are_at_fault_themselves() -> None:
    (line,) = faults({"auth": "open", "host": "::", "open_on_network": "ture"})
    assert line.startswith("open_on_network: ")


# All at once


def test_all_faults_of_all_sources_are_reported_at_once(toml: Toml) -> None:
    file = toml('port = "5000"\nprot = 1\nmax_chain = 0')
    environ = {"ROOKERY_PORT": "x", "ROOKERY_CACHE_BYTES": "big", "ROOKERY_HOTS": "a"}
    lines = faults({"port": "-1", "auth": "open", "host": "::"}, environ, file)
    assert [line.split(":")[0] for line in lines] == [
        *("port", "prot", "max_chain"),
        *("cache.bytes", "ROOKERY_HOTS", "port"),
        *("port", "auth"),
    ]


def test_a_broken_file_does_not_hide_the_other_faults(toml: Toml) -> None:
    assert len(faults({"port": "x"}, {"ROOKERY_LOG_LEVEL": "loud"}, toml("port = "))) == 3


def test_a_bad_value_is_a_fault_also_where_a_higher_source_overrides_it() -> None:
    (line,) = faults({"port": "5000"}, {"ROOKERY_PORT": "x"})
    assert line.endswith("(environment ROOKERY_PORT)")


# Pulling


@pytest.mark.parametrize(("text", "threshold"), [("auto", None), ("off", None), ("0", 0), ("500", 500)])
def test_pull_threshold_in_one_process(text: str, threshold: int | None) -> None:
    assert loaded({"pull_threshold": text}).settings.effective_pull_threshold == threshold


@pytest.mark.parametrize(("given", "threshold"), [("auto", 10_000), ("off", None), (0, 0), (500, 500)])
def test_pull_threshold_with_a_shared_cache(given: Any, threshold: int | None) -> None:
    settings = Settings(data=Path("/srv"), cache="memcached", pull_threshold=given)
    assert settings.effective_pull_threshold == threshold


# What is written about them


def test_settings_and_their_descriptions_are_in_step() -> None:
    assert [spec.attribute for spec in SPECS] == [each.name for each in fields(Settings)]


@pytest.mark.parametrize(
    ("name", "variable", "flag"),
    [
        ("port", "ROOKERY_PORT", "--port"),
        ("cache.bytes", "ROOKERY_CACHE_BYTES", "--cache-bytes"),
        ("rate_limit.token", "ROOKERY_RATE_LIMIT_TOKEN", "--rate-limit-token"),
    ],
)
def test_variables_and_flags_are_named_after_the_setting(name: str, variable: str, flag: str) -> None:
    assert (SPEC[name].env, SPEC[name].flag) == (variable, flag)


def test_no_two_settings_share_a_variable() -> None:
    assert len({spec.env for spec in SPECS}) == len(SPECS)
    assert config.FILE_VARIABLE not in {spec.env for spec in SPECS}


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.name != "data"], ids=lambda spec: spec.name)
def test_a_default_as_documented_is_the_default(spec: config.Spec) -> None:
    assert from_flag(spec.name, spec.default_text) == getattr(loaded().settings, spec.attribute)


def test_the_reference_has_a_row_of_six_cells_for_every_setting() -> None:
    header, rule, *rows = reference().splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert header.count("|") == rule.count("|") == 7
    assert [row[0] for row in cells] == [f"`{spec.name}`" for spec in SPECS]
    assert all(len(row) == 6 and all(row) for row in cells)
    assert next(row for row in cells if row[0] == "`cache.bytes`")[1:5] == [
        "`--cache-bytes`",
        "`ROOKERY_CACHE_BYTES`",
        "a size in bytes, such as 0, 64MB or 256 MiB",
        "256 MiB",
    ]
