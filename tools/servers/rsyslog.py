"""rsyslog: the local one that takes Rookery's lines, and the central one, with the configurations that we ship."""

import socket
from collections.abc import Sequence
from pathlib import Path

from tools.servers.installing import require, require_file
from tools.servers.process import Process, free_port

SHIPPED = Path(__file__).parents[2] / "deploy" / "rsyslog"
_WITH_THEM = SHIPPED / "00-rookery.conf"
_RELP = "usr/lib/*/rsyslog/imrelp.so"
_TLS = "usr/lib/*/rsyslog/lmnsd_gtls.so"
_FOR_TLS = "#tls "


class Rsyslog(Process):
    """One rsyslogd with a file of ours, in which some words are replaced by what they are on this machine.

    `port` is where it takes lines; `authority` and `own` are PEM files, `own` of a certificate with its key. With `tls`
    the lines that are in the file for that take the place of those below them.
    """

    def __init__(
        self, folder: Path, file: Path, *, authority: Path, own: Path, central: int = 0, tls: bool = False
    ) -> None:
        super().__init__(folder)
        self.port = free_port()
        self._file = file
        self._authority = authority
        self._own = own
        self._central = central
        self._tls = tls

    @property
    def address(self) -> str:
        """`host:port`, as the setting `log.server` takes it."""
        return f"127.0.0.1:{self.port}"

    @property
    def spool(self) -> Path:
        """Where it keeps what waits."""
        return self.folder / "spool"

    @property
    def logs(self) -> Path:
        """Where the central one files what it gets."""
        return self.folder / "files"

    @property
    def dropped(self) -> Path:
        """Where the local one says how many lines it had no place for."""
        return self.folder / "dropped"

    def command(self) -> Sequence[str]:
        program = require("rsyslogd", "rsyslog")
        require_file(_RELP, "rsyslog-relp")
        if self._tls:
            require_file(_TLS, "rsyslog-gnutls")
        conf = self.folder / "rsyslog.conf"
        conf.write_text(self._settings())
        return [program, "-n", "-f", str(conf), "-i", str(self.folder / "pid"), "-C"]

    def check(self) -> Sequence[str]:
        """The command that only looks whether its configuration is right."""
        self.folder.mkdir(parents=True, exist_ok=True)
        program, *rest = self.command()
        return [program, "-N1", *rest[1:]]

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def _settings(self) -> str:
        self.spool.mkdir(exist_ok=True)
        text = _with_tls(self._file.read_text()) if self._tls else self._file.read_text()
        for word, here in {
            "/etc/rsyslog.d/rookery/authority.pem": str(self._authority),
            "/etc/rsyslog.d/rookery/own.pem": str(self._own),
            "/etc/rsyslog.d/rookery/own.key": str(self._own),
            "/usr/local/sbin/rookery-file": str(SHIPPED / "rookery-file"),
            "/var/log/rookery-dropped": str(self.dropped),
            "/var/log/rookery": str(self.logs),
            "/var/spool/rsyslog": str(self.spool),
            'port="5140"': f'port="{self.port}"',
            'imrelp" port="6514"': f'imrelp" port="{self.port}"',
            'port="6514"': f'port="{self._central}"',
            "CENTRAL": "127.0.0.1",
        }.items():
            text = text.replace(word, here)
        if "\nglobal(" in text:
            return text
        return f"$WorkDirectory {self.spool}\n{_WITH_THEM.read_text()}{text}"  # the first line is Debian's own


def _with_tls(text: str) -> str:
    kept: list[str] = []
    is_replaced = False
    for line in text.splitlines():
        if line.startswith(_FOR_TLS):
            kept.append(line.removeprefix(_FOR_TLS))
        elif not is_replaced:
            kept.append(line)
        is_replaced = line.startswith(_FOR_TLS)
    return "\n".join(kept) + "\n"
