"""The system calls that a program under test may make, with their numbers (tiers T2 and T3).

This lists what is allowed, because a list of what is forbidden becomes wrong with every new kernel.
These are left out on purpose: fork, exec, kill, socket, ptrace, process_vm_*, mount, unshare, bpf,
io_uring, keyctl, memfd_create, chmod and chown (Landlock does not cover them), truncate by path
(Landlock only covers it from ABI 3), shared memory and priorities. The numbers are those of the
kernel's uapi headers. A - marks a call that the architecture does not have.
"""

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""platform.machine() to (audit architecture, column of the table)."""

_TABLE = """
read 0 63, write 1 64, mmap 9 222, munmap 11 215, futex 202 98, lseek 8 62, fstat 5 80,
newfstatat 262 79, openat 257 56, close 3 57, brk 12 214, mprotect 10 226, mremap 25 216,
madvise 28 233, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, readv 19 65,
writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70, preadv2 327 286,
pwritev2 328 287, open 2 -, close_range 436 436, stat 4 -, lstat 6 -, statx 332 291,
mincore 27 232, msync 26 227, mlock 149 228, munlock 150 229, rt_sigpending 127 136,
rt_sigsuspend 130 133, rt_sigtimedwait 128 137, sigaltstack 131 132, access 21 -,
faccessat 269 48, faccessat2 439 439, pipe 22 -, pipe2 293 59, dup 32 23, dup2 33 -,
dup3 292 24, select 23 -, pselect6 270 72, poll 7 -, ppoll 271 73, epoll_create 213 -,
epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, eventfd2 290 19,
sched_yield 24 124, sched_getaffinity 204 123, sched_getparam 143 121,
sched_getscheduler 145 120, sched_get_priority_max 146 125, sched_get_priority_min 147 126,
getcpu 309 168, getpid 39 172, getppid 110 173, gettid 186 178, getuid 102 174, geteuid 107 175,
getgid 104 176, getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups 115 158,
getpgrp 111 -, getpgid 121 155, getsid 124 156, set_robust_list 273 99, get_robust_list 274 100,
rseq 334 293, set_tid_address 218 96, membarrier 324 283, restart_syscall 219 128, exit 60 93,
exit_group 231 94, wait4 61 260, waitid 247 95, getcwd 79 17, chdir 80 49, fchdir 81 50,
mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35, rename 82 -,
renameat 264 38, renameat2 316 276, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36,
readlink 89 -, readlinkat 267 78, umask 95 166, flock 73 32, fsync 74 82, fdatasync 75 83,
ftruncate 77 46, getdents64 217 61, statfs 137 43, fstatfs 138 44, fadvise64 221 223,
sendfile 40 71, copy_file_range 326 285, getrandom 318 278, clock_gettime 228 113,
clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101, gettimeofday 96 169,
time 201 -, times 100 153, getrusage 98 165, sysinfo 99 179, uname 63 160, getrlimit 97 163,
setrlimit 160 164, alarm 37 -, setitimer 38 103, getitimer 36 102, timer_create 222 107,
timer_settime 223 110, timer_gettime 224 108, timer_delete 226 111, arch_prctl 158 -, pause 34 -
"""

_SPECIAL = """
clone3 435 435, ioctl 16 29, fcntl 72 25, prlimit64 302 261, socketpair 53 199
"""
"""Calls of which only some arguments are allowed; `filters` has the rules."""

_UNTIL_FORBIDDEN = """
clone 56 220, prctl 157 167, tgkill 234 131, kill 62 129, setsid 112 157, sendto 44 206,
recvfrom 45 207, sendmsg 46 211, recvmsg 47 212, pidfd_open 434 434, pidfd_send_signal 424 424
"""
"""Calls that the process needs that forks the tests. A test gives them up, or keeps them for some
arguments."""


def allowed(machine: str) -> list[int]:
    """Numbers of the calls that are allowed with any argument, the frequent ones first."""
    return list(_read(_TABLE, machine).values())


def special(machine: str) -> dict[str, int]:
    """Name to number of the calls that are allowed with some arguments."""
    return _read(_SPECIAL, machine)


def until_forbidden(machine: str) -> dict[str, int]:
    """Name to number of the calls that are allowed until the program itself runs."""
    return _read(_UNTIL_FORBIDDEN, machine)


def _read(table: str, machine: str) -> dict[str, int]:
    """Name to number. With column 1, `open 2 -, close 3 57` is {"close": 57}."""
    _, column = ARCHITECTURES[machine]
    numbers_of = {}
    for entry in table.split(","):
        name, *numbers = entry.split()
        if numbers[column] != "-":
            numbers_of[name] = int(numbers[column])
    return numbers_of
