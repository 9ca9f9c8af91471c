"""What a process gives up for good before it runs somebody's code. Linux; standard library only.

Afterwards it may compute, read Python's own library, and talk over the descriptors that it has. It can't start a
process or a thread, open a socket, write a file, signal or trace anybody, or read other files. Three means, none of
which needs rights:

* limits (setrlimit): CPU time, memory, descriptors, files of no bytes at all
* seccomp: of the system calls only those that an interpreter computes with; all others fail with EPERM, and so does
  opening a file in any way that would change it
* Landlock: files to read are those below the folders that are named; not on kernels before 5.13
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress

# By name: its number on x86_64 and on aarch64; None: there is none.
_CALLS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "open": (2, None), "close": (3, 57), "stat": (4, None), "fstat": (5, 80),
    "lstat": (6, None), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215),
    "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "pread64": (17, 67), "readv": (19, 65), "writev": (20, 66), "access": (21, None), "sched_yield": (24, 124),
    "mremap": (25, 216), "madvise": (28, 233), "dup": (32, 23), "nanosleep": (35, 101), "getitimer": (36, 102),
    "setitimer": (38, 103), "getpid": (39, 172), "exit": (60, 93), "uname": (63, 160), "getcwd": (79, 17),
    "readlink": (89, None), "gettimeofday": (96, 169), "getrusage": (98, 165), "sysinfo": (99, 179),
    "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177),
    "getppid": (110, 173), "sigaltstack": (131, 132), "gettid": (186, 178), "time": (201, None), "futex": (202, 98),
    "sched_getaffinity": (204, 123), "getdents64": (217, 61), "restart_syscall": (219, 128),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "exit_group": (231, 94),
    "openat": (257, 56), "newfstatat": (262, 79), "readlinkat": (267, 78), "faccessat": (269, 48),
    "set_robust_list": (273, 99), "getrandom": (318, 278), "membarrier": (324, 283), "statx": (332, 291),
    "rseq": (334, 293), "faccessat2": (439, 439),
}  # fmt: skip
# Which of their arguments says how a file is opened, and the bits there with which it would be changed, or made. On a
# kernel without Landlock this alone keeps files safe: a limit of no bytes does not stop one from being cut to nothing.
_OPENING = {"open": 1, "openat": 2}
_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # our column, the kernel's AUDIT_ARCH_*

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _PR_SET_PDEATHSIG = 4, 22, 38, 1
_SECCOMP_MODE_FILTER = 2
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_ANY, _RETURN = 0x20, 0x15, 0x45, 0x06  # of BPF
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000 | errno.EPERM

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # of Landlock, on all architectures
_RULESET_VERSION, _PATH_BENEATH = 1, 1
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # by Landlock's version: how many rights of files it knows; 16 from 5 on
_EXECUTE, _READ_FILE, _READ_DIR = 1, 4, 8
_SIGKILL = 9


def die_with_parent() -> None:
    """Be killed when the parent ends. Raises OSError."""
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)


def limit(*, memory: int, cpu: int) -> None:
    """`memory`: bytes of address space; `cpu`: seconds; then SIGXCPU, and SIGKILL a second later."""
    for name, soft, hard in (
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_NOFILE, 32, 32),
    ):
        resource.setrlimit(name, (soft, hard))


def hide_files(readable: Iterable[str], but: str) -> bool:
    """From now on only what is below these paths, and below Python's library, can be read; nothing can be written.

    And nothing below the folder `but`: ours may be installed in the middle of Python's library.
    False: this kernel has no Landlock, and nothing has changed. Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _RULESET_VERSION)
    if version < 1:
        return False
    handled = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    attributes = struct.pack("=Q", handled)
    if version >= 4:
        attributes += struct.pack("=Q", 3)  # neither bind nor connect
    if version >= 6:
        attributes += struct.pack("=Q", 3)  # no abstract sockets, no signals, of others
    ruleset = _checked(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    hidden = os.path.realpath(but)
    parts = [part for path in [*readable, *_library()] for part in _parts(os.path.realpath(path), hidden)]
    for path, rights in dict.fromkeys(parts):
        with suppress(FileNotFoundError):
            at = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=Qi", rights, at)
            _checked(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
            os.close(at)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)
    return True


def leave_few_calls() -> None:
    """From now on all system calls but those of the table fail. Raises OSError; NotImplementedError elsewhere."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise NotImplementedError(f"no table of system calls for {machine}")
    column, architecture = _ARCHITECTURES[machine]
    program = [(_LOAD, 0, 0, 4), (_JUMP_IF_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _FAIL), (_LOAD, 0, 0, 0)]
    for name, argument in _OPENING.items():
        number = _CALLS[name][column]
        if number is not None:
            program += [(_JUMP_IF_EQUAL, 0, 4, number), (_LOAD, 0, 0, 16 + 8 * argument)]
            program += [(_JUMP_IF_ANY, 0, 1, _CHANGES), (_RETURN, 0, 0, _FAIL), (_RETURN, 0, 0, _ALLOW)]
    others = sorted(n for n in (call[column] for name, call in _CALLS.items() if name not in _OPENING) if n is not None)
    program += [(_JUMP_IF_EQUAL, len(others) - at, 0, number) for at, number in enumerate(others)]
    program += [(_RETURN, 0, 0, _FAIL), (_RETURN, 0, 0, _ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header)


def _parts(path: str, hidden: str) -> Iterator[tuple[str, int]]:
    """What is to be read for all below a path but one, and with which rights: a rule holds for all below its path."""
    if path == hidden or os.path.commonpath([path, hidden]) != path:
        yield path, _EXECUTE | _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0)
        return
    yield path, _READ_DIR
    with os.scandir(path) as entries:
        below = [entry.path for entry in entries if not entry.is_symlink()]  # a rule is of what a link leads to
    for each in below:
        if each != hidden:
            yield from _parts(each, hidden)


def _library() -> list[str]:
    """Where Python's library is, and the shared ones that it may load."""
    paths = sysconfig.get_paths()
    dynamic = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/ld.so.preload"]
    return [paths["stdlib"], paths["platstdlib"], sysconfig.get_config_var("LIBDIR") or "/usr/lib", *dynamic]


def _prctl(option: int, *arguments: int | bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    padded = [*arguments, 0, 0, 0][:4]
    _checked(libc.prctl(option, *(ctypes.c_ulong(a) if isinstance(a, int) else a for a in padded)))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
