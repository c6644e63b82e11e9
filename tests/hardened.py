"""Runs a program under what rookery.service takes away, as far as that goes without systemd as the first process.

`hardened.py WRITABLE COMMAND …`: the unit's own lines are read and done: its system calls, address families,
namespaces, memory, rights and a root folder that can't be written. Left out are its own user (PrivateUsers), what hides
folders in which the tests' interpreter and data lie (ProtectHome, PrivateTmp), and the device nodes and parts of /proc
and /sys that only another mount would hide.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

UNIT = Path(__file__).parents[1] / "deploy" / "debian" / "rookery.service"

_libc = ctypes.CDLL(None, use_errno=True)

_NEW_NAMESPACES = {"mount": 0x00020000, "ipc": 0x08000000, "uts": 0x04000000}
_ALL_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 4_096, 16_384, 1 << 18
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _READ_ONLY = 442, -100, 0x8000, 1
_CAPBSET_DROP = 24
_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
_PROT_WRITE, _PROT_EXEC, _SHM_EXEC = 2, 4, 0o100000
_SETUID_OR_SETGID = 0o6000
_EPERM, _ENOSYS = 1, 38
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EQUAL, _MASKED_EQUAL = 4, 7


def options(unit: Path = UNIT) -> Mapping[str, Sequence[str]]:
    """The lines of its [Service], by their names."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, is_option, value = line.partition("=")
        if is_option and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def allowed_calls(filters: Iterable[str]) -> set[str]:
    """The names of the system calls that are left by SystemCallFilter's lines: a list, then what is taken off it."""
    left: set[str] = set()
    for line in filters:
        names = {call for word in line.removeprefix("~").split() for call in _calls_of(word)}
        left = left - names if line.startswith("~") else left | names
    return left


def _calls_of(word: str) -> set[str]:
    if not word.startswith("@"):
        return {word}
    listed = subprocess.run(["systemd-analyze", "syscall-filter", word], check=True, capture_output=True, text=True)
    words = [line.strip() for line in listed.stdout.splitlines()[1:]]
    return {call for one in words if one and not one.startswith("#") for call in _calls_of(one)}


class _Condition(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("comparison", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


class _Filter:
    """What is not allowed fails with EPERM."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(_ERRNO | _EPERM)))

    def rule(self, call: str, *conditions: tuple[int, int, int, int], action: int = _ALLOW) -> None:
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:  # not a call of this machine
            return
        array = (_Condition * len(conditions))(*(_Condition(*condition) for condition in conditions))
        added = self._library.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(action), number, len(conditions), array
        )
        assert added == 0, (call, added)

    def load(self) -> None:
        assert self._library.seccomp_load(self._context) == 0


def _clear(argument: int, bits: int) -> tuple[int, int, int, int]:
    return argument, _MASKED_EQUAL, bits, 0


def filter_calls(service: Mapping[str, Sequence[str]]) -> None:
    """SystemCallFilter and what systemd does by such filters besides."""
    built = _Filter()
    allowed = allowed_calls(service["SystemCallFilter"])
    narrowed: dict[str, list[tuple[int, int, int, int]]] = {}
    if service["MemoryDenyWriteExecute"] == ["yes"]:
        narrowed["mmap"] = [_clear(2, _PROT_WRITE), _clear(2, _PROT_EXEC)]
        narrowed["mprotect"] = narrowed["pkey_mprotect"] = [_clear(2, _PROT_EXEC)]
        narrowed["shmat"] = [_clear(2, _SHM_EXEC)]
    narrowed["socket"] = [(0, _EQUAL, _FAMILIES[name], 0) for name in service["RestrictAddressFamilies"][0].split()]
    if service["RestrictNamespaces"] == ["yes"]:
        narrowed["clone"] = [_clear(0, _ALL_NAMESPACES)]
        narrowed["unshare"] = [_clear(0, _ALL_NAMESPACES)]
        narrowed["setns"] = []
        narrowed["clone3"] = []  # its flags can't be seen; as with systemd, the C library then takes clone
        built.rule("clone3", action=_ERRNO | _ENOSYS)
    if service["RestrictSUIDSGID"] == ["yes"]:
        narrowed["chmod"] = narrowed["fchmod"] = [_clear(1, _SETUID_OR_SETGID)]
        narrowed["fchmodat"] = [_clear(2, _SETUID_OR_SETGID)]
    if service["RestrictRealtime"] == ["yes"]:
        narrowed["sched_setscheduler"] = [(1, _EQUAL, 0, 0)]
    if service["LockPersonality"] == ["yes"]:
        narrowed["personality"] = []
    for call in sorted(allowed):
        if call in narrowed:
            for condition in narrowed[call]:
                built.rule(call, condition)
        else:
            built.rule(call)
    built.load()


def take_rights(service: Mapping[str, Sequence[str]]) -> None:
    """All capabilities go: the next program has none, whoever it runs as."""
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == [""]
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        _check(_libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0), "prctl")


def take_files(service: Mapping[str, Sequence[str]], writable: Path) -> None:
    """Nothing can be written but one folder, and what others share between processes is not there."""
    assert service["ProtectSystem"] == ["strict"]
    wanted = _NEW_NAMESPACES["mount"] | (_NEW_NAMESPACES["ipc"] if service["PrivateIPC"] == ["yes"] else 0)
    wanted |= _NEW_NAMESPACES["uts"] if service["ProtectHostname"] == ["yes"] else 0
    _check(_libc.unshare(wanted), "unshare")
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount")
    folder = os.fsencode(writable)
    _check(_libc.mount(folder, folder, None, _MS_BIND | _MS_REC, None), "mount")
    _set_read_only(b"/", _AT_RECURSIVE, _READ_ONLY, 0)
    _set_read_only(folder, _AT_RECURSIVE, 0, _READ_ONLY)


def _set_read_only(path: bytes, flags: int, on: int, off: int) -> None:
    attributes = (ctypes.c_uint64 * 4)(on, off, 0, 0)
    done = _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, path, flags, ctypes.byref(attributes), ctypes.sizeof(attributes))
    _check(done, "mount_setattr")


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), what)


def main(writable: str, *command: str) -> None:
    service = options()
    here = Path.cwd()
    take_files(service, Path(writable).absolute())
    os.chdir(here)
    os.umask(int(service["UMask"][0], 8))
    take_rights(service)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    filter_calls(service)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(*sys.argv[1:])
