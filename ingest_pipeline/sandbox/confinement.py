"""Permanently drops the rights that a hostile document could use: to files, the network and other processes.

Used by the child processes of parsers and chunkers only. Linux has three mechanisms that need no privileges. Each is
used if the kernel supports it:

- **Landlock**: only some folders can be read, and one can be written. Other processes, such as the parent with its
  secrets, cannot be inspected through ``/proc`` or receive a signal.
- **seccomp**: no sockets, no other programs, no new processes, no limits raised, and none of the calls by which
  kernels are attacked.
- **Namespaces** of users and network, where one of these two is missing.

Numbers and structures are those of ``linux/landlock.h``, ``linux/seccomp.h`` and the tables of system calls; they never
change. PyPI has no binding of these that is kept and light.
"""

import ctypes
import errno
import os
import platform
import resource
import struct
import sysconfig
from collections.abc import Iterable, Sequence
from typing import Final

MAX_FILE_BYTES: Final = 64 << 20
"""Bytes in a file that a child may write. The built-in parser unpacks a library of 8 MB and writes nothing else."""
MAX_OPEN_FILES: Final = 64
_LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/nix/store")
_DEVICES: Final = ("/dev/null", "/dev/random", "/dev/urandom", "/dev/zero")

_PR_SET_NO_NEW_PRIVS = 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ABI_VERSION, _PATH_BENEATH = 1, 1
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000

# Rights to files, as bits; those from the fourteenth on came with later versions of Landlock.
_WRITE_FILE, _READ_FILE, _READ_DIR, _REFER, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 13, 1 << 14
_MAKE_DIR, _MAKE_FILE, _REMOVE = 1 << 7, 1 << 8, 0b11 << 4
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _MAKE_DIR | _MAKE_FILE | _REMOVE | _REFER | _TRUNCATE
_OF_A_FILE = _READ_FILE | _WRITE_FILE | _TRUNCATE
_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Number of file rights in each version of Landlock. Later versions have as many as the last."""
_TCP_SINCE, _SCOPES_SINCE, _ALL_OF_TWO = 4, 6, 0b11

_ARCHITECTURE: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_REFUSED: Final[dict[str, tuple[int, ...]]] = {
    "x86_64": (
        *(41, 42, 43, 49, 50, 288),  # socket, connect, accept, bind, listen, accept4
        *(57, 58, 59, 322),  # fork, vfork, execve, execveat
        *(62, 129, 200, 424),  # kill, rt_sigqueueinfo, tkill, pidfd_send_signal
        *(101, 310, 311, 312, 434, 438, 440),  # ptrace, process_vm_*, kcmp, pidfd_open, pidfd_getfd, process_madvise
        *(248, 249, 250, 298, 321, 323, 425),  # keys, perf_event_open, bpf, userfaultfd, io_uring_setup
        *(
            135,
            155,
            161,
            165,
            166,
            272,
            303,
            304,
            308,
        ),  # personality, pivot_root, chroot, mount, unshare, handles, setns
        *(103, 160, 163, 167, 169, 175, 176, 246, 313, 320),  # syslog, setrlimit, acct, swapon, reboot, modules, kexec
    ),
    "aarch64": (
        *(198, 200, 201, 202, 203, 242),
        *(221, 281),
        *(129, 130, 138, 424),
        *(117, 270, 271, 272, 434, 438, 440),
        *(217, 218, 219, 241, 280, 282, 425),
        *(39, 40, 41, 51, 92, 97, 264, 265, 268),
        *(89, 104, 105, 106, 116, 142, 164, 224, 273, 294),
    ),
}
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_CLONE: Final = {"x86_64": 56, "aarch64": 220}
_PRLIMIT: Final = {"x86_64": 302, "aarch64": 261}
_CLONE3, _CLONE_THREAD = 435, 0x10000
_X32 = 0x40000000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_SET_FILTER, _ALL_THREADS = 1, 1

_libc = ctypes.CDLL(None, use_errno=True)
_Instruction = tuple[int, int, int, int]
"""Code, instructions to skip if true, and if false, operand."""


def drop_rights(folders: Iterable[str]) -> list[str]:
    """Keep only the rights to read Python, its libraries and some folders, and to write the folder HOME.

    Args:
        folders: Other files and folders that may be read.

    Returns:
        The rights that could not be dropped, see `confine`.
    """
    found = [*folders, *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))]
    found += os.environ.get("LD_LIBRARY_PATH", "").split(":")
    readable = [folder for folder in (*found, *_LIBRARIES, *_DEVICES) if folder]
    return confine(readable, [os.environ["HOME"]], file_bytes=MAX_FILE_BYTES, open_files=MAX_OPEN_FILES)


def confine(readable: Iterable[str], writable: Iterable[str], *, file_bytes: int, open_files: int) -> list[str]:
    """Drop every right that is not named. Must be called before the process has a second thread.

    Args:
        readable: Files and folders that may be read. Missing ones are ignored.
        writable: Folders that may be written too.
        file_bytes: Maximum size of a file that it writes.
        open_files: Maximum number of open files.

    Returns:
        The rights that could not be dropped: some of ``files``, ``network`` and ``other processes``.
    """
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, open_files),
    ):
        limit_for_good(kind, value)
    # Landlock and seccomp require that no program started later can gain privileges.
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    alone = False
    if not (landlock_version() and _filters_calls()):
        alone = _libc.unshare(_NEW_USER | _NEW_NET) == 0
    files = _drop_files(readable, writable)
    calls = _drop_calls()
    kept = {"files": files, "network": calls or alone, "other processes": files or alone}
    return [name for name, dropped in kept.items() if not dropped]


def limit_for_good(kind: int, value: int) -> None:
    """Lower a resource limit of this process permanently."""
    _, hard = resource.getrlimit(kind)
    lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (lower, lower))


def unavailable() -> list[str]:
    """The mechanisms that this kernel lacks or does not allow here."""
    missing = {"Landlock": landlock_version() > 0, "seccomp": _filters_calls()}
    return [name for name, offered in missing.items() if not offered]


def landlock_version() -> int:
    """Version of the kernel's Landlock, 0 if it has none."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _ABI_VERSION)))


def _filters_calls() -> bool:
    """Whether the kernel supports seccomp filters and its call numbers are known."""
    machine = platform.machine()
    if machine not in _SECCOMP:
        return False
    refuse = ctypes.c_uint32(_REFUSE)
    action_available = 2
    return int(_libc.syscall(_SECCOMP[machine], action_available, 0, ctypes.byref(refuse))) == 0


def _drop_files(readable: Iterable[str], writable: Iterable[str]) -> bool:
    version = landlock_version()
    if not version:
        return False
    handled = (1 << _RIGHTS[min(version, max(_RIGHTS))]) - 1
    attributes = struct.pack("=Q", handled)
    if version >= _TCP_SINCE:
        attributes += struct.pack("=Q", _ALL_OF_TWO)  # no rule gives TCP back
    if version >= _SCOPES_SINCE:
        attributes += struct.pack("=Q", _ALL_OF_TWO)  # abstract sockets and signals
    ruleset = int(_libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0))
    if ruleset < 0:
        return False
    try:
        for paths, rights in ((readable, _READ), (writable, _WRITE)):
            for path in paths:
                _allow(ruleset, path, rights & handled)
        return int(_libc.syscall(_RESTRICT_SELF, ruleset, 0)) == 0
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        allowed = rights if os.path.isdir(path) else rights & _OF_A_FILE  # noqa: PTH112  strings, for a quick start
        _libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", allowed, place), 0)
    finally:
        os.close(place)


def _drop_calls() -> bool:
    if not _filters_calls():
        return False
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _program(platform.machine()))
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog, with the padding before its pointer.
    prepared = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    return int(_libc.syscall(_SECCOMP[platform.machine()], _SET_FILTER, _ALL_THREADS, prepared)) == 0


def _program(machine: str) -> Sequence[_Instruction]:
    refused = (_RETURN, 0, 0, _REFUSE | errno.EPERM)
    found: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_AT_LEAST, 0, 1, _X32),  # the other way to call an x86
        refused,
    ]
    for number in _REFUSED[machine]:
        found += [(_JUMP_EQUAL, 0, 1, number), refused]
    return [
        *found,
        # A filter cannot read its flags. Without it, the C library falls back to `clone`.
        (_JUMP_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _REFUSE | errno.ENOSYS),
        # Allow threads, refuse processes.
        (_JUMP_EQUAL, 0, 4, _CLONE[machine]),
        (_LOAD, 0, 0, _ARGUMENTS_AT),
        (_JUMP_BITS, 1, 0, _CLONE_THREAD),
        refused,
        (_RETURN, 0, 0, _ALLOW),
        # Allow reading a limit, which has no third argument. Its halves are checked one by one.
        (_JUMP_EQUAL, 0, 5, _PRLIMIT[machine]),
        (_LOAD, 0, 0, _ARGUMENTS_AT + 2 * 8),
        (_JUMP_EQUAL, 0, 2, 0),
        (_LOAD, 0, 0, _ARGUMENTS_AT + 2 * 8 + 4),
        (_JUMP_EQUAL, 1, 0, 0),
        refused,
        (_RETURN, 0, 0, _ALLOW),
    ]
