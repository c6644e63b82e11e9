"""What a setting may hold, as text and in TOML, and what is said of anything else."""

import pytest

from tests.unit.configs import Toml, faults, from_flag, loaded


@pytest.mark.parametrize("text", ["", " ", "5000 ", "5_000", "+5000", "5e3", "٥٠٠٠", "0x10", "nan", "inf", "9" * 5000])
def test_a_number_is_written_in_plain_digits(text: str) -> None:
    (line,) = faults({"port": text})
    assert line.endswith("is not a whole number from 0 to 65535 (flag --port)")


@pytest.mark.parametrize("text", ["true", "1", "yes", "TRUE", "Yes"])
def test_words_for_true(text: str) -> None:
    assert from_flag("open_on_network", text) is True


@pytest.mark.parametrize("text", ["false", "0", "no", "False"])
def test_words_for_false(text: str) -> None:
    assert from_flag("open_on_network", text) is False


@pytest.mark.parametrize("text", ["", "on", "2", "y", "ture"])
def test_other_words_are_neither(text: str) -> None:
    assert faults({"open_on_network": text}) == (
        f"open_on_network: {text!r} is not true or false (flag --open-on-network)",
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1024", 1024),
        ("10 B", 10),
        ("64MB", 64_000_000),
        ("64 mb", 64_000_000),
        ("256 MiB", 268_435_456),
        ("2KiB", 2048),
        ("1GiB", 1_073_741_824),
        ("1TB", 10**12),
    ],
)
def test_a_size_may_have_a_unit(text: str, size: int, toml: Toml) -> None:
    assert from_flag("cache.bytes", text) == size
    assert loaded(file=toml(f'cache.bytes = "{text}"')).settings.cache_bytes == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "-1 MB", "1.5GiB", "64M", "64 MiBB", "64  MB", "1 \u212aB"])
def test_other_sizes_are_refused(text: str) -> None:
    (line,) = faults({"cache.bytes": text})
    assert line.endswith("is not a size in bytes, such as 0, 64MB or 256 MiB (flag --cache-bytes)")


# Hosts, origins and networks


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("0.0.0.0", "0.0.0.0"),  # noqa: S104 - on purpose
        ("::", "::"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("LocalHost", "localhost"),
        ("rookery_api.internal", "rookery_api.internal"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_a_host_is_an_address_or_a_name(text: str, host: str) -> None:
    assert from_flag("host", text) == host


@pytest.mark.parametrize(
    "text",
    [
        *("", "*", "a b", "a\n", "a..b", "a.", "-a", "bücher.example", "\u212a.example"),
        *("localhost:5000", "[::1]", "http://localhost"),
        *("256.0.0.1", "127.1", "0", "010.0.0.1"),
        *("a" * 64, ".".join(["a" * 63] * 4)),
    ],
)
def test_other_hosts_are_refused(text: str) -> None:
    assert faults({"host": text}) == (f"host: {text!r} is not an IP address or a host name (flag --host)",)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://example.org", "https://example.org"),
        ("HTTPS://Example.ORG", "https://example.org"),
        ("https://example.org:443", "https://example.org"),
        ("http://example.org:80", "http://example.org"),
        ("http://example.org:443", "http://example.org:443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[0:0::1]:8080", "http://[::1]:8080"),
        ("capacitor://localhost", "capacitor://localhost"),
    ],
)
def test_an_origin_becomes_what_a_browser_sends(text: str, origin: str) -> None:
    assert from_flag("cors_origins", text) == (origin,)


@pytest.mark.parametrize(
    "text",
    [
        *("*", "null", "example.org", "https://", "https://*.example.org", "1https://a", "https://a b"),
        *("https://a/", "https://a/x", "https://a?b", "https://a#b", "https://b@a"),
        *("https://a:", "https://a:0", "https://a:65536", "https://a:b"),
        *("https://::1", "https://[::1", "https://[127.0.0.1]", "https://[a]"),
    ],
)
def test_other_origins_are_refused(text: str) -> None:
    assert faults({"cors_origins": text}) == (
        f"cors_origins: {text!r} is not an origin (scheme://host or scheme://host:port) (flag --cors-origins)",
    )


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "proxy", "*", "10.0.0"])
def test_other_networks_are_refused(text: str) -> None:
    assert faults({"trusted_proxies": text}) == (
        f"trusted_proxies: {text!r} is not an IP address or a network such as 10.0.0.0/8 (flag --trusted-proxies)",
    )


def test_every_bad_entry_of_a_list_is_named() -> None:
    (line,) = faults(environ={"ROOKERY_ALLOWED_HOSTS": "a.org, *, ,b"})
    due = "is not an IP address or a host name"
    assert line == f"allowed_hosts: '*' {due}; '' {due} (environment ROOKERY_ALLOWED_HOSTS)"


@pytest.mark.parametrize("text", ["", "a", "a:", ":1", "a:0", "a:65536", "a:b", "::1:5", "[::1]", "a b:1", "a:1:2"])
def test_other_addresses_are_refused(text: str) -> None:
    assert faults({"cache.servers": [text]})


def test_there_is_a_server_for_each_part() -> None:
    assert faults({"cache.servers": []}) == ("cache.servers: name a server (flag --cache-servers)",)
    assert faults({"ranking.servers": []}) == ("ranking.servers: name a server (flag --ranking-servers)",)
