# ruff: noqa: PTH102, PTH103, PTH112, PTH114, PTH115, PTH120, PTH211
# Names go to system calls as they are, so they are not pathlib.Path.
"""How a process gives up its own powers: Landlock, seccomp, namespaces, capabilities (stage 7).

Every function acts on the calling process. It raises OSError with the name of the step when the
kernel refuses it, because an incomplete sandbox must not run anything. Standard library only.
"""

import ctypes
import errno
import functools
import os
import platform
import struct

from . import filters

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]

# Namespaces.
CLONE_NEWNS = 0x20000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# prctl
_PR_SET_PDEATHSIG = 1
_PR_SET_SECCOMP = 22
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

# mount, umount2, mount_setattr
_MS_NOSUID = 2
_MS_NODEV = 4
_MS_NOEXEC = 8
_MS_NOATIME = 1024
_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18
_MNT_DETACH = 2
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 1
_MOUNT_ATTR_NOSUID = 2

# System calls that the C library has no function for.
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_MOUNT_SETATTR = 442
_SYS_LANDLOCK_CREATE = 444
_SYS_LANDLOCK_ADD = 445
_SYS_LANDLOCK_RESTRICT = 446

# Rights of Landlock. Each version adds some, so the first N bits are all rights of a version.
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_REMOVE_DIR = 1 << 4
_REMOVE_FILE = 1 << 5
_MAKE_DIR = 1 << 7
_MAKE_REG = 1 << 8
_MAKE_SYM = 1 << 12
_REFER = 1 << 13
_TRUNCATE = 1 << 14
_NUM_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # by version; later ones have 16
_IN_BOX = _READ_FILE | _WRITE_FILE | _TRUNCATE | _READ_DIR | _REFER
_IN_BOX |= _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REMOVE_DIR | _REMOVE_FILE


def _check(value: int, step: str) -> None:
    """Raises: OSError for what a system call returns when it fails."""
    if value < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{step}: {os.strerror(number)}")


def die_with_parent() -> None:
    """SIGKILL to this process when its parent ends. A change of uid clears it."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl PDEATHSIG")


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent ends."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl CHILD_SUBREAPER")


def no_new_privileges() -> None:
    """Prevent programs that this process executes from gaining powers. Needed by the filters."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl NO_NEW_PRIVS")


def drop_capabilities() -> None:
    """Give up all capabilities, also those in a user namespace."""
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    nothing = ctypes.create_string_buffer(24)
    _check(_libc.capset(header, nothing), "capset")


def unshare(flags: int) -> None:
    """Leave the named namespaces for new ones."""
    _check(_libc.unshare(flags), "unshare")


def map_user(uid: int, gid: int) -> None:
    """In a new user namespace: keep this uid and gid, and map no others."""
    # A line of a map: the first id inside, the first id outside, and how many there are.
    texts = {
        "setgroups": "deny",
        "uid_map": f"{uid} {uid} 1",
        "gid_map": f"{gid} {gid} 1",
    }
    for name, text in texts.items():
        handle = os.open(f"/proc/self/{name}", os.O_WRONLY)
        try:
            os.write(handle, text.encode())
        finally:
            os.close(handle)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        None if kind is None else os.fsencode(kind),
        ctypes.c_ulong(flags),
        None if data is None else os.fsencode(data),
    )
    _check(result, f"mount {target}")


def mount_box(target: str, size_mib: int, uid: int, gid: int) -> None:
    """Mount a fresh memory file system at `target`, with limits on bytes and files."""
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_NOATIME
    data = f"size={size_mib}m,nr_inodes=1024,mode=0700,uid={uid},gid={gid}"
    _mount("box", target, "tmpfs", flags, data)


def unmount(target: str) -> None:
    """Remove the top file system from `target`. It ends with the last process that has it open."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"umount {target}")


def new_root(read_only: list[str], box: str) -> None:
    """Replace the file system by one with only `read_only` (files, folders) and an empty `box`.

    The process must have its own mount namespace.
    """
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    root = _free_folder(read_only)
    _mount("root", root, "tmpfs", _MS_NOSUID, "size=1m,mode=0755")
    for path in sorted(read_only):
        _show(path, root + path)
    os.mkdir(root + box)
    if not os.path.lexists(root + "/tmp"):
        os.symlink(box, root + "/tmp")
    os.chdir(root)
    # The old root is now on top of the new one, and is removed from there.
    pivot_root = _SYS_PIVOT_ROOT[platform.machine()]
    _check(_libc.syscall(pivot_root, b".", b"."), "pivot_root")
    unmount(".")
    os.chdir("/")
    _set_attributes("/", _MOUNT_ATTR_RDONLY, 0)


def _free_folder(read_only: list[str]) -> str:
    """A folder that contains nothing of `read_only`."""
    for place in ("/tmp", "/mnt", "/srv", "/media", "/opt", "/home"):
        inside = place + "/"
        is_needed = any(path == place or path.startswith(inside) for path in read_only)
        is_folder = os.path.isdir(place) and not os.path.islink(place)
        if is_folder and not is_needed:
            return place
    raise OSError(errno.ENOENT, "new root: no folder is free to hold it")


def _show(path: str, target: str) -> None:
    """Make a link, a folder or a file visible at `target`. Only devices can be written there."""
    if os.path.islink(path):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.symlink(os.readlink(path), target)
        return
    if os.path.lexists(target):
        return  # inside a folder that is there already
    if os.path.isdir(path):
        os.makedirs(target)
    else:
        # Something has to be there to mount on.
        os.makedirs(os.path.dirname(target), exist_ok=True)
        handle = os.open(target, os.O_CREAT | os.O_WRONLY, 0o644)
        os.close(handle)
    _mount(path, target, None, _MS_BIND | _MS_REC)
    if not path.startswith("/dev/"):
        _set_attributes(target, _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID, _AT_RECURSIVE)


def _set_attributes(path: str, attributes: int, flags: int) -> None:
    # struct mount_attr: what to set, what to clear, propagation, a user namespace
    attr = struct.pack("QQQQ", attributes, 0, 0, 0)
    result = _libc.syscall(
        _SYS_MOUNT_SETATTR,
        _AT_FDCWD,
        os.fsencode(path),
        flags,
        attr,
        ctypes.c_size_t(len(attr)),
    )
    _check(result, f"mount_setattr {path}")


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 where there is none."""
    version = _libc.syscall(_SYS_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    return max(0, version)


class FileRules:
    """The files that Landlock allows to a program, in addition to its own folder.

    They are opened here, once, before this process gives up its user. A program's own user may not
    be able to reach them by name. The descriptors stay open.

    Args:
        read_only: files and folders that may be read. /dev/null may also be written.

    Raises: OSError where the kernel has no Landlock, or a file cannot be opened.
    """

    def __init__(self, read_only: list[str]) -> None:
        abi = landlock_abi()
        if abi < 1:
            raise OSError(errno.ENOSYS, "landlock: the kernel has none")
        num_rights = _NUM_RIGHTS.get(abi, 16)
        self._handled = (1 << num_rights) - 1
        # struct landlock_ruleset_attr: files, and from later versions on TCP, signals and sockets
        self._attr = struct.pack("Q", self._handled)
        if abi >= 4:
            self._attr += struct.pack("Q", 3)  # neither bind nor connect
        if abi >= 6:
            self._attr += struct.pack("Q", 3)  # no abstract sockets of others, no signals to others
        self._rules: list[bytes] = []
        for path in sorted({os.path.realpath(path) for path in read_only}):
            rights = _READ_FILE
            if path == "/dev/null":
                rights |= _WRITE_FILE
            if os.path.isdir(path):
                rights |= _READ_DIR
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            self._rules.append(self._rule(handle, rights))

    def _rule(self, handle: int, rights: int) -> bytes:
        """struct landlock_path_beneath_attr: rights below an open file or folder."""
        return struct.pack("=Qi", rights & self._handled, handle)

    def restrict(self, box: str) -> None:
        """Allow this process only to open these files and those in `box`.

        It can neither bind nor connect TCP sockets. On newer kernels it also cannot send signals to
        processes outside, or use their abstract sockets. Call no_new_privileges first.
        """
        size = ctypes.c_size_t(len(self._attr))
        ruleset = _libc.syscall(_SYS_LANDLOCK_CREATE, self._attr, size, 0)
        _check(ruleset, "landlock_create_ruleset")
        handle = os.open(box, os.O_PATH | os.O_CLOEXEC)
        rules = [*self._rules, self._rule(handle, _IN_BOX)]
        for rule in rules:
            added = _libc.syscall(_SYS_LANDLOCK_ADD, ruleset, 1, rule, 0)
            _check(added, "landlock_add_rule")
        restricted = _libc.syscall(_SYS_LANDLOCK_RESTRICT, ruleset, 0)
        _check(restricted, "landlock_restrict_self")
        os.close(handle)
        os.close(ruleset)


def return_to_own_processes() -> None:
    """After unshare(CLONE_NEWPID): put further children into this process's own namespace again."""
    handle = os.pidfd_open(os.getpid())
    try:
        _check(_libc.setns(handle, CLONE_NEWPID), "setns")
    finally:
        os.close(handle)


def prepare_filters() -> None:
    """Build the filters once, before the processes that use them are forked.

    Raises: OSError for a machine without a table of system calls.
    """
    _filter_of_a_program()
    _filter_of_a_test()


def allow_known_calls() -> None:
    """Allow only the system calls of `syscalls`. Others fail with EPERM.

    Call no_new_privileges first.
    """
    _filter_of_a_program().install()


def forbid_processes() -> None:
    """After `allow_known_calls`: forbid new processes, messages, and signals to other processes.

    Threads are allowed.
    """
    _filter_of_a_test().install()


class _Filter:
    """A seccomp filter that is completely prepared, so that installing it is one call.

    Args:
        program: its instructions.
        pid_at: the place in them for the pid of the process that installs it.
    """

    def __init__(self, program: bytes, pid_at: int | None = None) -> None:
        self._code = ctypes.create_string_buffer(program, len(program))
        self._pid_at = pid_at
        # struct sock_fprog: the number of instructions, of 8 bytes each, and where they are
        num_instructions = len(program) // 8
        descriptor = struct.pack("HxxxxxxP", num_instructions, ctypes.addressof(self._code))
        self._descriptor = ctypes.create_string_buffer(descriptor)
        self._address = ctypes.addressof(self._descriptor)

    def install(self) -> None:
        if self._pid_at is not None:
            struct.pack_into("I", self._code, self._pid_at, os.getpid())
        _check(_libc.prctl(_PR_SET_SECCOMP, 2, self._address, 0, 0), "seccomp")


@functools.cache
def _filter_of_a_program() -> _Filter:
    return _Filter(filters.of_a_program())


@functools.cache
def _filter_of_a_test() -> _Filter:
    return _Filter(*filters.of_a_test())
