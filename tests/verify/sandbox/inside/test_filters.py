"""The filters of system calls, run by a plain interpreter of their instructions."""

import errno
import os
import platform
import struct

import pytest

from variational_reasoning.verify.sandbox.inside import filters, syscalls

MACHINE = platform.machine()
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
KILL = 0x80000000

pytestmark = pytest.mark.skipif(
    MACHINE not in syscalls.ARCHITECTURES, reason=f"no table of system calls for {MACHINE}"
)


def decide(program, number, *arguments, architecture=None):
    """What a filter says about a call: each instruction is (code, skip if true, skip if false,
    value)."""
    if architecture is None:
        architecture, _ = syscalls.ARCHITECTURES[MACHINE]
    # struct seccomp_data: number, architecture, instruction pointer, six arguments
    call = struct.pack("IIQ6Q", number, architecture, 0, *[*arguments, *[0] * 6][:6])
    instructions = list(struct.iter_unpack("HBBI", program))
    at, word = 0, 0
    while True:
        code, if_true, if_false, value = instructions[at]
        at += 1
        match code:
            case 0x20:
                (word,) = struct.unpack_from("I", call, value)
            case 0x15:
                at += if_true if word == value else if_false
            case 0x35:
                at += if_true if word >= value else if_false
            case 0x45:
                at += if_true if word & value else if_false
            case 0x06:
                return value
            case _:
                raise AssertionError(f"instruction {code:#x}")


def test_a_program_may_make_the_calls_of_the_table_and_no_others():
    program = filters.of_a_program()
    known = {*syscalls.allowed(MACHINE), *syscalls.until_forbidden(MACHINE).values()}
    special = set(syscalls.special(MACHINE).values())
    for number in [*range(700), 0x40000000, 0x40000000 + 41, 0xFFFFFFFF]:
        if number not in special:
            assert decide(program, number) == (ALLOW if number in known else EPERM), number
    assert decide(program, 0, architecture=0x40000003) == KILL  # 32-bit calls


def test_special_calls_are_decided_by_their_arguments():
    program = filters.of_a_program()
    numbers = syscalls.special(MACHINE)
    assert decide(program, numbers["clone3"]) == ENOSYS
    assert decide(program, numbers["ioctl"], 1, 0x5401) == ALLOW
    assert decide(program, numbers["ioctl"], 1, 0x5412) == EPERM  # TIOCSTI types into a terminal
    assert decide(program, numbers["fcntl"], 1, 4) == ALLOW
    assert decide(program, numbers["fcntl"], 1, 8) == EPERM  # F_SETOWN
    assert decide(program, numbers["prlimit64"], 0) == ALLOW
    assert decide(program, numbers["prlimit64"], 1) == EPERM
    assert decide(program, numbers["socketpair"], 1) == ALLOW
    assert decide(program, numbers["socketpair"], 30) == EPERM


def test_a_test_gives_up_processes_messages_and_signals_to_others():
    program, pid_at = filters.of_a_test()
    own = bytearray(program)
    struct.pack_into("I", own, pid_at, os.getpid())
    numbers = syscalls.until_forbidden(MACHINE)
    some = {"clone", "prctl", "tgkill"}
    for number in range(700):
        if number not in {numbers[name] for name in some}:
            expected = EPERM if number in numbers.values() else ALLOW
            assert decide(bytes(own), number) == expected, number
    assert decide(bytes(own), numbers["clone"], 0x10000) == ALLOW  # a thread
    assert decide(bytes(own), numbers["clone"], 17) == EPERM  # a fork
    assert decide(bytes(own), numbers["prctl"], 15) == ALLOW
    assert decide(bytes(own), numbers["prctl"], 4) == EPERM
    assert decide(bytes(own), numbers["tgkill"], os.getpid()) == ALLOW
    assert decide(bytes(own), numbers["tgkill"], os.getpid() + 1) == EPERM


@pytest.mark.parametrize("numbers", [[], [0], [3, 4, 5], [0, 2, 4, 6], list(range(0, 300, 7))])
def test_a_rule_is_found_by_halving(numbers):
    rules = {number: filters.op(filters.GIVE, 1000 + number // 2) for number in numbers}
    search = filters.by_number(rules, filters.op(filters.GIVE, 1))
    program = filters.op(filters.LOAD, 0) + search
    for number in range(310):
        expected = 1000 + number // 2 if number in numbers else 1
        assert decide(program, number) == expected
