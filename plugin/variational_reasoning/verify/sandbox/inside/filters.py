"""Seccomp filters: the instructions that the kernel runs for every system call (tiers T2 and T3).

A filter is a program of eight-byte instructions. It loads parts of the call, and jumps:

    load 0                     the number of the call
    from 58: jump 2            calls 58 and above: skip two instructions
    equal 57: jump 1           fork: skip one
    give ALLOW
    give EPERM

A jump of N skips N instructions, so 0 continues with the next one. Standard library only.
"""

import errno
import platform
import struct

from . import syscalls

# Codes of instructions.
LOAD = 0x20  # a word of the call: 0 its number, 4 the architecture, 16 + 8 i its argument i
GIVE = 0x06  # the filter ends with this result
_JUMP_EQUAL = 0x15
_JUMP_FROM = 0x35  # where the word is at least so large
_JUMP_BITS = 0x45  # where one of these bits is set

# Results.
ALLOW = 0x7FFF0000
DENY = 0x50000 | errno.EPERM
_ABSENT = 0x50000 | errno.ENOSYS
_KILL = 0x80000000

_NUMBER_AT = 0
_ARCHITECTURE_AT = 4
_ARGUMENTS_AT = 16

# Arguments that are allowed.
_TTY_QUERIES = (
    0x5401,  # TCGETS
    0x5413,  # TIOCGWINSZ
    0x541B,  # FIONREAD
    0x5421,  # FIONBIO
    0x5450,  # FIONCLEX
    0x5451,  # FIOCLEX
)
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)  # duplicate, flags, locks; not F_SETOWN: it signals
_PRCTL = (15, 16, 0x53564D41)  # set and get a thread's name, name a piece of memory
_AF_UNIX = 1
_CLONE_THREAD = 0x10000

_PID_PLACE = struct.pack("I", 0x7FFFFFFF)
"""Marks the place in a test's filter for the pid of the process that installs it."""


def of_a_program() -> bytes:
    """The filter that only allows the calls of `syscalls`. Others fail with EPERM.

    Raises: OSError for a machine without a table of system calls.
    """
    machine = platform.machine()
    if machine not in syscalls.ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"seccomp: no table of system calls for {machine}")
    special = {
        # Its flags are in memory that a filter cannot read. The C library then uses clone.
        "clone3": op(GIVE, _ABSENT),
        "ioctl": _one_of(1, _TTY_QUERIES),
        "fcntl": _one_of(1, _FCNTL),
        "prlimit64": _one_of(0, (0,)),
        # Another family would make the kernel load its module.
        "socketpair": _one_of(0, (_AF_UNIX,)),
    }
    known = [*syscalls.allowed(machine), *syscalls.until_forbidden(machine).values()]
    rules = dict.fromkeys(known, op(GIVE, ALLOW))
    for name, number in syscalls.special(machine).items():
        rules[number] = special[name]
    architecture, _ = syscalls.ARCHITECTURES[machine]
    return (
        op(LOAD, _ARCHITECTURE_AT)
        + op(_JUMP_EQUAL, architecture, 1, 0)
        + op(GIVE, _KILL)
        + op(LOAD, _NUMBER_AT)
        + by_number(rules, op(GIVE, DENY))
    )


def of_a_test() -> tuple[bytes, int]:
    """The second filter, which forbids new processes, messages, and signals to other processes.

    Threads are allowed.

    Returns: the filter, and the place in it for the pid of the process that installs it.
    """
    only_threads = (
        op(LOAD, _ARGUMENTS_AT)
        + op(_JUMP_BITS, _CLONE_THREAD, 0, 1)
        + op(GIVE, ALLOW)
        + op(GIVE, DENY)
    )
    special = {
        "clone": only_threads,
        "prctl": _one_of(0, _PRCTL),
        "tgkill": _one_of(0, struct.unpack("I", _PID_PLACE)),
    }
    rules = {}
    for name, number in syscalls.until_forbidden(platform.machine()).items():
        rules[number] = special.get(name, op(GIVE, DENY))
    program = op(LOAD, _NUMBER_AT) + by_number(rules, op(GIVE, ALLOW))
    return program, program.index(_PID_PLACE)


def op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction; if_true and if_false are how many it skips."""
    return struct.pack("HBBI", code, if_true, if_false, value)


def by_number(rules: dict[int, bytes], otherwise: bytes) -> bytes:
    """The rule of each system call, whose number is loaded.

    It is found by halving. When a filter is installed, the kernel runs it for every existing
    number. A list would make that take half a millisecond for each program.
    """
    # With rule A for call 3 and rule B for calls 4 and 5 the parts are: `otherwise` from 0 on, A
    # from 3 on, B from 4 on, `otherwise` from 6 on.
    parts = [(0, otherwise)]
    for number in sorted(rules):
        first, _ = parts[-1]
        if first == number:
            parts.pop()
        if not parts or parts[-1][1] != rules[number]:
            parts.append((number, rules[number]))
        parts.append((number + 1, otherwise))
    return _halved(parts)


def _halved(parts: list[tuple[int, bytes]]) -> bytes:
    """A jump over the lower half of the parts, that half, and the upper half, each halved again."""
    if len(parts) == 1:
        _, rule = parts[0]
        return rule
    middle = len(parts) // 2
    first, _ = parts[middle]
    below = _halved(parts[:middle])
    above = _halved(parts[middle:])
    num_skipped = len(below) // 8  # instructions, of eight bytes each
    return op(_JUMP_FROM, first, num_skipped, 0) + below + above


def _one_of(argument: int, values: tuple[int, ...]) -> bytes:
    """Allow a call where one of its arguments has one of these values."""
    rule = op(LOAD, _ARGUMENTS_AT + 8 * argument)
    for value in values:
        rule += op(_JUMP_EQUAL, value, 0, 1)  # another value skips the next instruction
        rule += op(GIVE, ALLOW)
    return rule + op(GIVE, DENY)
