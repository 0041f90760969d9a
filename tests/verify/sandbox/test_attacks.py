"""Programs that attack the sandbox, each bounded, so that a hole would not hurt this machine.

They come in 32 groups, whose numbers are in the names of the tests.

A program gets 7 on standard input and 14 is expected. Most attacks print 14 only when they have
succeeded, so that `correct` means a hole. After each of them nothing of it may be left: no process,
no file, and the next program is fine.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from variational_reasoning.verify.programs.judge import check_program
from variational_reasoning.verify.sandbox.inside import program
from variational_reasoning.verify.sandbox.runner import Program
from variational_reasoning.verify.sandbox.sandbox import Limits, Sandbox
from variational_reasoning.verify.verdicts import Verdict

from ..conftest import LIMITS, need_tier

CHECK = {"kind": "program", "tests": {"inputs": ["7\n"], "outputs": ["14\n"]}}
RIGHT = "print(int(input()) * 2)\n"


def judge(sandbox, source, check=CHECK, seconds=20.0, limits=LIMITS):
    return check_program(check, f"```python\n{source}\n```", sandbox, limits, seconds)


def attempt(*actions):
    """A program that prints 14 when any of the actions goes through, else how the first of them
    failed."""
    lines = ["why = []", "done = False"]
    for action in actions:
        lines += ["try:", *(f"    {line}" for line in action.splitlines()), "    done = True"]
        lines += ["except BaseException as error:", "    why.append(repr(error))"]
    return "\n".join([*lines, "print(14 if done else 'stopped ' + why[0].replace(' ', '_'))"])


def is_clean(sandbox):
    """Nothing runs below the sandbox's own process, and it still works."""
    deadline = time.monotonic() + 10  # the process that waited for the program is just ending
    while sandbox.survivors() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sandbox.survivors() == []
    assert judge(sandbox, RIGHT).verdict is Verdict.CORRECT


LIMIT_ATTACKS = {
    "2 threads": (
        (
            "import threading, time\n"
            "for _ in range(400): threading.Thread(target=time.sleep, args=(20,), "
            "daemon=True).start()\nprint(14)"
        ),
        {"runtime_error"},
    ),
    "3 memory in one piece": ("x = bytearray(4 << 30)\nprint(14)", {"memory_limit"}),
    "3 memory in small pieces": (
        "x = []\nfor _ in range(4096): x.append(bytearray(1 << 20))\nprint(14)",
        {"memory_limit", "timeout"},
    ),
    "3 memory in a list": ("x = [0] * (1 << 29)\nprint(14)", {"memory_limit"}),
    "3 memory by numpy": ("import numpy\nx = numpy.ones(1 << 30)\nprint(14)", {"memory_limit"}),
    "4 endless loop": ("while True: pass", {"timeout"}),
    "4 endless loop in C": ("sum(iter(int, 1))", {"timeout"}),
    "4 huge power": ("print(len(str(9 ** 9 ** 8)))", {"timeout"}),
    "5 sleep": ("import time; time.sleep(30)", {"timeout"}),
    "6 endless output": ("while True: print('x' * 4000)", {"output_limit"}),
    "6 endless errors": ("import sys\nwhile True: sys.stderr.write('x' * 4000)", {"output_limit"}),
    "6 one long line": (
        "import sys\nfor _ in range(1024): sys.stdout.write('x' * (1 << 20))",
        {"output_limit"},
    ),
    "6 megabytes before the right answer": (
        "import sys\nsys.stdout.write('1 ' * (1 << 20)); print(14)",
        {"wrong"},
    ),
    "7 one big file": (
        "with open('f', 'wb') as f:\n    for _ in range(256): f.write(bytes(1 << 20))\nprint(14)",
        {"runtime_error"},
    ),
    "7 many files": (
        (
            "import time\nfor i in range(5000): open(f'f{i}', 'w').write('x')\n"
            "time.sleep(1)\nprint(14)"
        ),
        {"runtime_error", "output_limit"},
    ),
    "7 many big files": (
        (
            "import time\nfor i in range(20):\n"
            "    open(f'f{i}', 'wb').write(bytes(15 << 20))\n    time.sleep(0.02)\n"
            "time.sleep(1)\nprint(14)"
        ),
        {"runtime_error", "output_limit"},
    ),
    "7 many open files": (
        "import os\nfor _ in range(100): os.open('/dev/null', os.O_RDONLY)\nprint(14)",
        {"runtime_error"},
    ),
    "11 exit before output": ("import sys; sys.exit(0)", {"wrong"}),
    "11 _exit before output": ("import os; os._exit(0)", {"wrong"}),
    "11 SystemExit": ("raise SystemExit", {"wrong"}),
    "11 exit at exit": ("import atexit, os; atexit.register(os._exit, 0)", {"wrong"}),
    "11 exit code 3 after output": (
        "import os\nprint(14, flush=True); os._exit(3)",
        {"runtime_error"},
    ),
    "15 writes to every descriptor but its output": (
        (
            "import os\nfor n in (0, *range(2, 256)):\n    try: os.write(n, b'14\\n')\n"
            "    except OSError: pass"
        ),
        {"wrong"},
    ),
    "16 deep recursion": ("def f(n): return 1 + f(n + 1)\nf(0)", {"runtime_error"}),
    "16 recursion of a million": (
        (
            "import sys\nsys.setrecursionlimit(10**7)\n"
            "def f(n): return 0 if n == 0 else 1 + f(n - 1)\nf(10**7)"
        ),
        {"runtime_error", "memory_limit", "timeout"},
    ),
    "16 stack of C": ("import ctypes; ctypes.string_at(8)", {"runtime_error"}),
    "16 kills itself": ("import signal; signal.raise_signal(9)", {"runtime_error"}),
    "16 overflow in C": (
        (
            "import sys\nsys.setrecursionlimit(10**9)\nx = []\n"
            "for _ in range(10**6): x = [x]\nprint(len(repr(x)) and 14)"
        ),
        {"runtime_error", "memory_limit", "timeout"},
    ),
    "16 abort": ("import os; os.abort()", {"runtime_error"}),
    "17 waits for more input": ("input(); input()", {"runtime_error"}),
    "17 reads for ever": ("import sys\nwhile True: sys.stdin.read()", {"timeout"}),
    "17 closes its input": ("import os\nos.close(0)\nprint(int(input()) * 2)", {"runtime_error"}),
    "17 closes its output": ("import os\nos.close(1)\nprint(14)", {"runtime_error"}),
    "18 ignores signals": (
        "import signal\nfor s in range(1, 65):\n"
        "    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
        {"timeout"},
    ),
    "18 swallows everything": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        {"timeout"},
    ),
    "18 own alarm": (
        "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0)\nsignal.alarm(0)\nwhile True: pass",
        {"timeout"},
    ),
    "25 right, then a crash": (RIGHT + "1 / 0", {"runtime_error"}),
    "25 right, then sleep": (
        RIGHT + "import time, sys; sys.stdout.flush(); time.sleep(30)",
        {"timeout"},
    ),
    "27 bytes that are no text": (
        "import sys\nsys.stdout.buffer.write(b'\\xff\\xfe14')",
        {"wrong"},
    ),
    "27 zero bytes": ("print('14\\0')", {"wrong"}),
    "24 calls of another architecture": (
        "import ctypes, mmap\npage = mmap.mmap(-1, 4096, prot=7)\n"
        "page.write(b'\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3')  # getpid by int 0x80\n"
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()\n"
        "print(14)",
        {"runtime_error"},
    ),
    "29 does not compile": ("print(", {"compile_error"}),
    "29 compiler bomb": ("x = " + "(" * 20000 + ")" * 20000, {"compile_error"}),
    "29 compiler works hard": (
        "x = " + "-" * 9000 + "1",
        {"compile_error", "runtime_error", "wrong"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LIMIT_ATTACKS)
def test_limits_hold_and_the_verdict_says_which(sandbox, name):
    source, allowed = LIMIT_ATTACKS[name]
    start = time.monotonic()
    result = judge(sandbox, source)
    assert result.verdict.value in allowed, result
    assert time.monotonic() - start < 12
    is_clean(sandbox)


def test_1_fork_bomb(sandbox):
    source = attempt(
        "import os, time\nfor _ in range(50):\n    if os.fork() == 0:\n"
        "        time.sleep(20); os._exit(0)"
    )
    result = judge(sandbox, source)
    assert result.verdict is Verdict.WRONG, result
    is_clean(sandbox)


@pytest.mark.parametrize(
    "action",
    [
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "import subprocess; subprocess.run(['/bin/true'], check=True)",
        "import multiprocessing as m; p = m.get_context('fork').Process(target=print); p.start()",
        "import os\nassert os.system('true') == 0",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.fork() or os.setsid() or os.fork()",  # 19: a daemon
        "import os\nfor _ in range(100):\n    if os.fork() == 0: os._exit(0)",  # 20: zombies
        "import os; os.forkpty()",
    ],
)
def test_19_20_no_process_can_be_started(sandbox, action):
    result = judge(sandbox, attempt(action))
    assert result.verdict is Verdict.WRONG, result
    is_clean(sandbox)


def test_8_10_22_files_outside_are_out_of_reach(sandbox, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside")
    for place in (folder, *folder.parents):
        if place == Path("/tmp"):
            break
        place.chmod(0o777)  # so that only the sandbox stands in the way
    token = folder / "token"
    token.write_text("14")
    token.chmod(0o666)
    actions = [
        f"open({str(token)!r}).read()",
        f"open({str(token)!r}, 'w').write('x')",
        f"import os; os.truncate({str(token)!r}, 0)",
        f"import os; os.remove({str(token)!r})",
        f"import os; os.rename({str(token)!r}, {str(folder / 'other')!r})",
        f"import os; os.listdir({str(folder)!r})",
        f"import shutil; shutil.rmtree({str(folder)!r})",
        f"import os; os.mkdir({str(folder / 'new')!r})",
        f"import os; os.chmod({str(token)!r}, 0)",
        f"import os; os.utime({str(token)!r})",
        f"import os; os.link({str(token)!r}, 'mine')",
        f"import os; os.symlink({str(token)!r}, 'mine'); open('mine').read()",
        f"import os; os.symlink({str(folder)!r}, 'there'); open('there/token', 'w').write('x')",
        f"import os; os.chdir({str(folder)!r}); open('token').read()",
        f"open({program.__file__!r}).read()",
        f"open({program.__file__!r}, 'a')",
        "open('/etc/passwd').read()",
        "open('/etc/hostname').read()",
        "import os; os.listdir('/root')",
        "import os; os.listdir('/home')",
        "import os; open(os.path.expanduser('~root/.netrc')).read()",
        "import os; os.listdir('/dev/shm')",
        "open('../written', 'w').write('x')",
        "open('/written', 'w').write('x')",
        "import os; os.mkfifo('fifo')",
        "import os, stat; os.mknod('device', stat.S_IFCHR | 0o600, os.makedev(1, 3))",
    ]
    for action in actions:
        result = judge(sandbox, attempt(action))
        assert result.verdict is Verdict.WRONG, (action, result)
    assert token.read_text() == "14" and [path.name for path in folder.iterdir()] == ["token"]
    is_clean(sandbox)


@pytest.mark.parametrize(
    "source",
    [
        "import os; os.mkdir('d'); open('d/f', 'w').write('x'); os.chdir('d')",
        "import os; os.symlink('/', 'root'); os.symlink('loop', 'loop')",
        "import os\nfor _ in range(60): os.mkdir('d'); os.chdir('d')",
        "import os; os.makedirs('a/b'); os.umask(0o777); os.mkdir('a/closed'); open('a/none', 'w')",
        "import os; os.rmdir(os.getcwd())",
        "open('a' * 200, 'w'); open('new\\nline', 'w')",
    ],
)
def test_22_whatever_a_program_leaves_in_its_folder_goes_away(tmp_path, source):
    for tier in (3, 2):
        (tmp_path / str(tier)).mkdir()
    for tier in (2, 3):
        try:
            need_tier(tier)
        except pytest.skip.Exception:
            continue
        folder = tmp_path / str(tier)
        for place in (folder, *list(folder.parents)[:-2]):
            place.chmod(0o711)
        with Sandbox(tier, folder=str(folder)) as opened:
            judge(opened, source)
            assert list(folder.iterdir()) == []
            assert judge(opened, RIGHT).verdict is Verdict.CORRECT


def test_9_no_network(sandbox):
    accepted = []
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        tcp.setblocking(False)
        abstract = socket.socket(socket.AF_UNIX)
        with abstract:
            abstract.bind(b"\0vr-test-%d" % os.getpid())
            abstract.listen()
            port, other = tcp.getsockname()[1], udp.getsockname()[1]
            result = judge(
                sandbox,
                attempt(
                    f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)",
                    (
                        f"import socket; socket.socket(socket.AF_INET, "
                        f"socket.SOCK_DGRAM).sendto(b'x', "
                        f"('127.0.0.1', {other}))"
                    ),
                    f"import socket; socket.socket(socket.AF_UNIX)"
                    f".connect(b'\\0vr-test-{os.getpid()}')",
                    f"import socket; socket.create_connection(('::1', {port}), 1)",
                    "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW)",
                    "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
                    "import socket; socket.getaddrinfo('localhost', 80)",
                    (
                        "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)"
                    ),  # multipath TCP
                    "import socket; socket.create_server(('127.0.0.1', 0))",
                    "import socket; socket.socket(socket.AF_VSOCK)",
                    # TIPC, whose module the kernel would load
                    "import socket; socket.socketpair(30)",
                    "import socket; a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [0])",
                ),
            )
            assert result.verdict is Verdict.WRONG, result
            for receive in (tcp.accept, lambda: udp.recv(1)):
                with pytest.raises(BlockingIOError):
                    accepted.append(receive())
    assert not accepted


def test_10_14_nothing_of_the_parents_is_visible(sandbox, monkeypatch):
    monkeypatch.setenv("VR_SECRET_TOKEN", "14")
    secret = open(__file__)  # noqa: PTH123, SIM115  a descriptor of the parent
    with secret:
        actions = [
            "import os; assert 'VR_SECRET_TOKEN' in os.environ",
            f"open('/proc/{os.getpid()}/environ', 'rb').read()",
            f"open('/proc/{os.getpid()}/cmdline', 'rb').read()",
            "import os; open(f'/proc/{os.getppid()}/environ', 'rb').read()",
            "import os; os.listdir(f'/proc/{os.getppid()}/fd')",
            "open('/proc/self/mem', 'rb').read(1)",
            "open('/proc/self/maps').read()",
            "import os; os.listdir('/proc')",
            # O_PATH: folders of the interpreter, which the next test is about
            "import fcntl, os\nfor n in range(3, 200):\n"
            "    try: flags = fcntl.fcntl(n, fcntl.F_GETFL)\n"
            "    except OSError: continue\n    if not flags & os.O_PATH: break\n"
            "else: raise OSError",
            "import os; os.read(3, 1)",
            "import sys; assert any('14' in a for a in sys.argv)",
            f"import os; os.kill({os.getpid()}, 0)",
            (
                f"import ctypes; l = ctypes.CDLL(None, use_errno=True)\n"
                f"assert l.ptrace(16, {os.getpid()}, 0, 0) == 0"
            ),
            "import ctypes; l = ctypes.CDLL(None)\nb = ctypes.create_string_buffer(64)\n"
            f"assert l.process_vm_readv({os.getpid()}, b, 1, b, 1, 0) > 0",
            "import ctypes; l = ctypes.CDLL(None)\nassert l.shmget(1, 4096, 0o1666) >= 0",
            (
                "from multiprocessing import shared_memory; "
                "shared_memory.SharedMemory(create=True, size=10)"
            ),
            "import gc\nwanted = chr(49) + '4\\n'\n"
            "assert any(type(o) in (dict, list, tuple) and wanted in (o.values() if "
            "type(o) is dict else o)"
            " for o in gc.get_objects() if o is not globals())",
            "import sys\nf = sys._getframe()\nwhile f:\n    for v in f.f_locals.values():\n"
            "        if isinstance(v, dict) and ('expected' in v or 'outputs' in v or "
            "'tests' in v): break\n    else:\n"
            "        f = f.f_back; continue\n    break\nelse: raise ValueError",
        ]
        for action in actions:
            result = judge(sandbox, attempt(action))
            assert result.verdict is Verdict.WRONG, (action, result)


def test_10_the_paths_of_the_streams_lead_nowhere_else(sandbox):
    """`open` knows `/dev/stdin` and its like in Python; no more of /dev and /proc is there than
    before."""
    paths = [
        "/proc/self",
        "/proc/self/fd",
        "/dev/fd",
        "/dev/stdin/..",
        "/dev/fd/0/..",
        "/proc",
        "/dev/pts",
    ]
    actions = [f"import os; os.listdir({path!r})" for path in paths]
    paths = [
        "/dev/stdin/../../etc/passwd",
        "/dev/fd/../../etc/passwd",
        "/proc/self/fd/0/../../mem",
        "/proc/self/environ",
    ]
    paths += ["/proc/1/fd/0", "/dev/fd/3", "/proc/self/fd/3", "/dev/tty", "/dev/kmsg", "/dev/mem"]
    actions += [f"open({path!r}, 'rb').read(1)" for path in paths]
    actions += [f"import os; os.read(os.open({path!r}, os.O_RDONLY), 1)" for path in paths]
    actions += [
        "assert open('/dev/stdin', 'w').write('14') and open(0).read() == '14'",
        "import os; os.write(os.open('/dev/stdin', os.O_RDWR), b'14')",
        "import os; os.ftruncate(os.open('/dev/fd/0', os.O_RDWR), 9)",
        "import os; os.read(os.open('/dev/stdout', os.O_RDWR), 1)",
    ]
    for action in actions:
        result = judge(sandbox, attempt(action))
        assert result.verdict is Verdict.WRONG, (action, result)
    is_clean(sandbox)


TOKEN = (
    "import re\n"
    "token = re.compile((chr(90) + chr(75) + chr(81)).encode() + rb'[0-9]{16}')  # "
    "not written out here\n"
)
HUNTS = {
    "frames": (
        "import sys\n"
        "def places():\n"
        "    for frame in [sys._getframe(), *sys._current_frames().values()]:\n"
        "        while frame:\n"
        "            yield from map(repr, (*frame.f_locals.values(), "
        "*frame.f_globals.values(), frame.f_code.co_consts))\n"
        "            frame = frame.f_back"
    ),
    "gc": (
        "import gc\n"
        "def places():\n"
        "    gc.unfreeze()\n"
        "    for thing in gc.get_objects():\n"
        "        yield from (part for part in gc.get_referents(thing) if type(part) in "
        "(str, bytes, bytearray))"
    ),
    "inspect": (
        "import inspect, sys\n"
        "def places():\n"
        "    for frame in inspect.stack(): yield from map(repr, inspect.getmembers(frame.frame))\n"
        "    for module in list(sys.modules.values()): yield from map(repr, vars(module).values())"
    ),
    "open files": (
        "import os\n"
        "def places():\n"
        "    for number in range(256):\n"
        "        for read in (lambda: os.pread(number, 1 << 20, 0), lambda: "
        "os.read(os.open(f'/proc/self/fd/{number}', 0), 1 << 20)):\n"
        "            try: yield read()\n"
        "            except OSError: pass"
    ),
    "environment and arguments": (
        "import os, sys\n"
        "def places():\n"
        "    yield from (repr(os.environ), repr(sys.argv), repr(sys.orig_argv))\n"
        "    for name in ('cmdline', 'environ'):\n"
        "        for pid in ('self', os.getppid(), 1):\n"
        "            try: yield open(f'/proc/{pid}/{name}', 'rb').read()\n"
        "            except OSError: pass"
    ),
    "the harness": (
        "import importlib, os, sys\n"
        "INSIDE = ['.sandbox.inside.' + name for name in ('fork_server', 'program', "
        "'entry', 'confine')]\n"
        "def places():\n"
        "    for name in ('', '.pool', '.programs.judge', '.programs.worker', "
        "'.sandbox', *INSIDE):\n"
        "        try: yield repr(vars("
        "importlib.import_module('variational_reasoning.verify' + name)))\n"
        "        except ImportError: pass\n"
        "    for top in ('.', '..', '/box', '/tmp', '/work', '/run', '/var', HERE):\n"
        "        for folder, _, names in os.walk(top):\n"
        "            for name in names[:100]:\n"
        "                try: yield open(os.path.join(folder, name), 'rb').read(1 << 16)\n"
        "                except OSError: pass"
    ),
    "shared memory": (
        "import ctypes, os\n"
        "def places():\n"
        "    libc = ctypes.CDLL(None)\n"
        "    libc.shmat.restype = ctypes.c_void_p\n"
        "    for number in range(64):\n"
        "        address = libc.shmat(number, None, 0o10000)\n"
        "        if address and address != 2 ** 64 - 1: yield ctypes.string_at(address, 4096)\n"
        "    for folder in ('/dev/shm', '/dev/mqueue'):\n"
        "        try: names = os.listdir(folder)\n"
        "        except OSError: continue\n"
        "        for name in names:\n"
        "            try: yield open(folder + '/' + name, 'rb').read(1 << 20)\n"
        "            except OSError: pass"
    ),
    "ptrace and process_vm_readv": (
        "import ctypes, os\n"
        "def places():\n"
        "    libc = ctypes.CDLL(None)\n"
        "    room = ctypes.create_string_buffer(1 << 16)\n"
        "    class Piece(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), "
        "('size', ctypes.c_size_t)]\n"
        "    here = Piece(ctypes.addressof(room), len(room))\n"
        "    for pid in {1, 2, os.getppid(), *PIDS, *range(max(1, os.getpid() - 50), "
        "os.getpid())}:\n"
        "        if libc.ptrace(0x4206, pid, None, None) == 0 or libc.ptrace(16, pid, "
        "None, None) == 0: yield bytes([90, 75, 81]) + b'0' * 16\n"
        "        for start in {id(thing) >> 16 << 16 for thing in (places, os, libc, room)}:\n"
        "            there = Piece(start, len(room))\n"
        "            if libc.process_vm_readv(pid, ctypes.byref(here), 1, "
        "ctypes.byref(there), 1, 0) > 0: yield room.raw\n"
        "            try: yield os.pread(os.open(f'/proc/{pid}/mem', 0), 1 << 16, start)\n"
        "            except OSError: pass"
    ),
    "all of its own memory": (  # what cannot be read makes write() fail and nothing worse
        "import ctypes, gc, os, sys\n"
        "def places():\n"
        "    gc.unfreeze()\n"
        "    starts = {id(thing) >> 20 << 20 for thing in gc.get_objects()} | "
        "{id(word) >> 20 << 20 for word in dir(sys)}\n"
        "    starts.add(ctypes.addressof(ctypes.c_int()) >> 20 << 20)\n"
        "    source, sink = os.pipe()\n"
        "    for start in starts:\n"
        "        found = b''\n"
        "        for address in range(start, start + (1 << 20), 4096):\n"
        "            try: found += os.read(source, os.write(sink, (ctypes.c_char * "
        "4096).from_address(address)))\n"
        "            except OSError: pass\n"
        "        yield found"
    ),
}
"""Where a program may look for the output that is expected of it; `places` yields texts."""

HUNT = (
    "for text in places():\n"
    "    found = token.search(text.encode(errors='replace') if isinstance(text, str) else text)\n"
    "    if found: print(found[0].decode()); break\n"
)


def hunted_token():
    return f"ZKQ{random.SystemRandom().randrange(10**15, 10**16)}"


@pytest.mark.parametrize("name", HUNTS)
def test_14_the_expected_output_is_nowhere(sandbox, name):
    expected = hunted_token()
    known = f"HERE, PIDS = {str(Path(__file__).parents[3])!r}, {[os.getpid(), sandbox.pid]}\n"
    source = TOKEN + known + HUNTS[name] + "\n" + HUNT + "else: print('nothing')"
    result = judge(
        sandbox,
        source,
        {"kind": "program", "tests": {"inputs": ["7\n"], "outputs": [expected]}},
        limits=Limits(),
    )
    assert result.verdict is Verdict.WRONG and "'nothing'" in result.reason, result
    tests = {"fn_name": "f", "inputs": [[7]], "outputs": [expected]}
    source = (
        TOKEN
        + known
        + HUNTS[name]
        + "\ndef f(x):\n"
        + HUNT.replace("for text", "  for text").replace("\n   ", "\n     ")
    )
    source = (
        source.replace("print(found[0].decode()); break", "return found[0].decode()")
        + "  return 'nothing'"
    )
    result = judge(sandbox, source, {"kind": "program", "tests": tests}, limits=Limits())
    assert (result.verdict, result.reason) == (Verdict.WRONG, "test 1 of 1: another result"), result


PLANTED = {
    "frames": "planted = input()",
    "gc": "planted = [input()]",
    "inspect": "planted = input()",
    "open files": "",
    "environment and arguments": "import os; os.environ['X'] = input()",
    "the harness": "open('here', 'w').write(input())",
    "all of its own memory": "planted = input()",
}


@pytest.mark.parametrize("name", PLANTED)
def test_14_the_hunts_find_what_is_there(sandbox, name):
    expected = hunted_token()
    source = TOKEN + "HERE = '.'\n" + PLANTED[name] + "\n" + HUNTS[name] + "\n" + HUNT
    result = judge(
        sandbox,
        source,
        {"kind": "program", "tests": {"inputs": [expected], "outputs": [expected]}},
        limits=Limits(),
    )
    assert result.verdict is Verdict.CORRECT, result


def test_10_22_no_way_leads_out_of_the_interpreters_folders(sandbox):
    """Run as root with an interpreter that others cannot reach by name, a program below tier 3
    holds its folders open."""
    closed, read_only = sandbox.interpreter.closed, sandbox.interpreter.read_only
    if sandbox.tier == 3 or os.getuid() != 0:
        closed = []
    number_of = {folder: number for number, folder in enumerate(closed, program.CHANNEL + 1)}
    held = (
        "import os\nfor n in range(3, 64):\n    if n in {}: continue\n"
        "    try: os.stat(n)\n    except OSError: continue\n    break\n"
        "else: raise OSError"
    )
    actions = [held.replace("{}", str(list(number_of.values())))]
    for folder, number in number_of.items():
        for up, parent in enumerate([Path(folder), *Path(folder).parents]):
            way = f"/proc/self/fd/{number}" + "/.." * up
            actions.append(f"import os; os.mkdir('{way}/new')")
            if any(parent == Path(path) or Path(path) in parent.parents for path in read_only):
                continue
            file = next((path.name for path in parent.iterdir() if path.is_file()), "etc/passwd")
            actions += [f"import os; os.listdir('{way}')", f"open('{way}/{file}', 'rb').read(1)"]
            actions.append(
                f"import os; os.open('{'/'.join(['..'] * up)}', os.O_RDONLY, dir_fd={number})"
            )
            actions += [
                (
                    f"import os; os.fchdir({number}); os.chdir('../' * {up}); "
                    f"open('{file}', 'rb').read(1)"
                )
            ]
    for action in actions:
        result = judge(sandbox, attempt(action))
        assert result.verdict is Verdict.WRONG, (action, result)
    is_clean(sandbox)


def test_21_nobody_else_can_be_killed(sandbox):
    with subprocess.Popen(["/bin/sleep", "60"]) as victim:
        actions = [
            f"import os; os.kill({victim.pid}, 9)",
            "import os; os.kill(os.getppid(), 9)",
            "import os; os.kill(1, 9)",
            "import os; os.killpg(0, 9)",
            f"import os; os.killpg({os.getpgid(0)}, 9)",
            f"import os, signal; signal.pidfd_send_signal(os.pidfd_open({victim.pid}), 9)",
            (
                f"import fcntl, os, signal; r, w = os.pipe(); "
                f"fcntl.fcntl(r, fcntl.F_SETOWN, {victim.pid})"
            ),
        ]
        if sandbox.tier == 3:
            actions.append("import os; os.kill(-1, 9)")
        for action in actions:
            result = judge(sandbox, attempt(action))
            assert result.verdict is Verdict.WRONG, (action, result)
        assert victim.poll() is None
        victim.kill()
    is_clean(sandbox)


def test_23_24_powers_cannot_be_won_back(sandbox):
    calls = "import ctypes; l = ctypes.CDLL(None, use_errno=True)\n"
    actions = [
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (100, 100))",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))",
        "import os; os.setuid(0)",
        "import os; os.setgroups([0])",
        "import os; os.chroot('.')",
        "import os; os.setpriority(os.PRIO_PROCESS, 0, -5)",
        "import os; os.sched_setaffinity(0, {0})",
        calls + "assert l.unshare(0x10000000) == 0",
        calls + "assert l.mount(b'none', b'.', b'tmpfs', 0, None) == 0",
        calls + "assert l.prctl(36, 1, 0, 0, 0) == 0",  # become a sub-reaper
        calls + "assert l.prctl(1, 0, 0, 0, 0) == 0",  # outlive the parent
        calls + "assert l.prctl(4, 1, 0, 0, 0) == 0",  # be dumpable
        calls + "assert l.syscall(425, 8, b'0' * 200) >= 0",  # io_uring_setup
        calls + "assert l.syscall(321, 0, b'0' * 120, 120) >= 0",  # bpf
        calls + "assert l.syscall(435, b'0' * 88, 88) >= 0",  # clone3
        calls + "assert l.syscall(56, 17, 0, 0, 0, 0) >= 0",  # clone as fork
        calls + "assert l.syscall(57) >= 0",  # fork
        calls + "assert l.syscall(41, 2, 1, 0) >= 0",  # socket
        calls + "assert l.syscall(0x40000000 + 41, 2, 1, 0) >= 0",  # socket of the x32 architecture
        calls + "assert l.syscall(319, b'x', 0) >= 0",  # memfd_create
        calls + "assert l.syscall(304, 0, 0, 0) >= 0",  # open_by_handle_at
        calls + "assert l.syscall(62, -1, 0) == 0",  # kill
        "import importlib, os; importlib.reload(os); os.fork()",
        "import posix; posix.fork()",
        "import _posixsubprocess, os; _posixsubprocess.fork_exec()",
    ]
    for action in actions:
        result = judge(sandbox, attempt(action))
        assert result.verdict is Verdict.WRONG, (action, result)
    is_clean(sandbox)


FUNCTION = {"kind": "program", "tests": {"fn_name": "f", "inputs": [[7], [8]], "outputs": [14, 16]}}
FUNCTION_ATTACKS = {
    "11 exit": ("import sys\ndef f(x): sys.exit(0)", {"runtime_error"}),
    "11 _exit": ("import os\ndef f(x): os._exit(0)", {"runtime_error"}),
    "12 equal to all": (
        "class E:\n    def __eq__(self, o): return True\n    __hash__ = None\ndef f(x): return E()",
        {"runtime_error"},
    ),
    "12 int equal to all": (
        (
            "class E(int):\n    def __eq__(self, o): return True\n"
            "    __hash__ = int.__hash__\ndef f(x): return E(3)"
        ),
        {"wrong"},
    ),
    "12 str": (
        (
            "class E(str):\n    def __eq__(self, o): return True\n"
            "    __hash__ = str.__hash__\ndef f(x): return E('14')"
        ),
        {"wrong"},
    ),
    "12 list": (
        (
            "class E(list):\n    def __eq__(self, o): return True\n    __hash__ = None\n"
            "    def __iter__(self): return iter([13])\ndef f(x): return E()"
        ),
        {"wrong"},
    ),
    "13 patched json": (
        "import json\njson.dumps = lambda *a, **k: '14'\ndef f(x): return 0",
        {"wrong"},
    ),
    "13 patched builtins": (
        "import builtins\nbuiltins.all = builtins.any = lambda x: True\ndef f(x): return 0",
        {"wrong"},
    ),
    "13 patched modules": (
        "import sys\nsys.modules.clear()\ndef f(x): return 0",
        {"wrong", "runtime_error"},
    ),
    "15 nothing": ("import os\nos.close(3)\ndef f(x): return 2 * x", {"runtime_error"}),
    "15 writes twice": (
        "import os\ndef f(x):\n    os.write(3, b'14')\n    return 14",
        {"runtime_error", "wrong"},
    ),
    "15 half": ("import os\ndef f(x):\n    os.write(3, b'[14'); os._exit(0)", {"runtime_error"}),
    "15 too much": (
        "import os\ndef f(x):\n    for _ in range(100): os.write(3, b'1' * (1 << 20))",
        {"output_limit"},
    ),
    "15 nan": ("def f(x): return float('nan')", {"wrong"}),
    "15 deep": (
        "import os\ndef f(x):\n    os.write(3, b'[' * 100000); os._exit(0)",
        {"runtime_error"},
    ),
    "15 long digits": (
        "import os\ndef f(x):\n    os.write(3, b'9' * 3000000); os._exit(0)",
        {"wrong"},
    ),
    "26 True for 1": ("def f(x): return x == 7", {"wrong"}),
    "28 state": (
        (
            "def f(x):\n    try: return int(open('s').read()) + 2\n    except OSError:\n"
            "        open('s', 'w').write('14'); return 14"
        ),
        {"wrong"},
    ),
    "28 state in the interpreter": (
        (
            "import math\ndef f(x):\n    math.seen = getattr(math, 'seen', 12) + 2\n"
            "    return math.seen"
        ),
        {"wrong"},
    ),
    "29 no function": ("def g(x): return 14", {"runtime_error"}),
    "a set": ("def f(x): return {14}", {"runtime_error"}),
}


@pytest.mark.parametrize("name", FUNCTION_ATTACKS)
def test_functions_cannot_fool_the_comparison(sandbox, name):
    source, allowed = FUNCTION_ATTACKS[name]
    result = judge(sandbox, source, FUNCTION)
    assert result.verdict.value in allowed, result
    is_clean(sandbox)


def test_13_patches_do_not_outlive_their_program(sandbox):
    judge(
        sandbox,
        (
            "import builtins, json, sys\nbuiltins.print = lambda *a: None\n"
            "json.loads = None\nsys.modules['math'] = None"
        ),
    )
    assert judge(sandbox, "import math\n" + RIGHT).verdict is Verdict.CORRECT


def test_28_the_samples_only(sandbox):
    check = {"kind": "program", "tests": {"inputs": ["7\n", "8\n"], "outputs": ["14\n", "16\n"]}}
    result = judge(sandbox, "print({'7': 14}.get(input(), 0))", check)
    assert result.verdict is Verdict.WRONG and result.reason.startswith("test 2 of 2")


def test_30_time_bomb(sandbox):
    check = {"kind": "program", "tests": {"inputs": ["7\n", "8\n"], "outputs": ["14\n", "16\n"]}}
    result = judge(sandbox, "x = int(input())\nwhile x == 8: pass\nprint(2 * x)", check)
    assert result.verdict is Verdict.TIMEOUT and result.reason.startswith("test 2 of 2")


def test_30_the_limit_of_all_tests_together(sandbox):
    check = {"kind": "program", "tests": {"inputs": ["7\n"] * 50, "outputs": ["14\n"] * 50}}
    result = judge(sandbox, "import time; time.sleep(0.2)\n" + RIGHT, check, seconds=1.0)
    assert result.verdict is Verdict.TIMEOUT
    assert result.seconds < 3


def test_17_much_input_that_is_never_read(sandbox):
    check = {"kind": "program", "tests": {"inputs": ["7\n" + "x" * 20_000_000], "outputs": ["14"]}}
    assert judge(sandbox, "print(14)", check).verdict is Verdict.CORRECT
    assert (
        judge(sandbox, "import sys\nprint(len(sys.stdin.read()) - 20_000_000 + 12)", check).verdict
        is Verdict.CORRECT
    )


def test_31_a_sandbox_that_is_killed_starts_again(sandbox):
    before = sandbox.num_restarts
    killer = threading.Timer(0.5, os.kill, (sandbox._process.pid, signal.SIGKILL))
    killer.start()
    result = judge(sandbox, "import time; time.sleep(1)\n" + RIGHT)
    killer.join()
    assert result.verdict is Verdict.CORRECT, result
    assert sandbox.num_restarts == before + 1
    os.kill(sandbox._process.pid, signal.SIGKILL)  # between two programs
    sandbox._process.wait()
    with Program(sandbox, RIGHT, LIMITS) as opened:
        assert opened.run(b"7\n").stdout == b"14\n"
    assert sandbox.num_restarts == before + 2


def test_31_programs_end_with_their_judge(tmp_path):
    tag = f"vr-test-{os.getpid()}"  # in the command line of the sandbox, and of what it forks
    need_tier(3)
    (tmp_path / tag).symlink_to(sys.executable)
    code = (
        "import os, signal, threading\n"
        "from variational_reasoning.verify.sandbox.runner import run_once\n"
        "from variational_reasoning.verify.sandbox.sandbox import Limits, Sandbox\n"
        f"sandbox = Sandbox(3, {str(tmp_path / tag)!r})\n"
        "threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()\n"
        "print(sandbox._process.pid, flush=True)\n"
        "run_once(sandbox, 'while True: pass', Limits(cpu_seconds=30, wall_seconds=60))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    time.sleep(0.5)
    stat = Path(f"/proc/{int(done.stdout)}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "ZX"
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [line for line in running if tag.encode() in line]


# Tier 1 stops none of the attacks above; what it promises is that limits hold and that nothing is
# left.


def test_t1_survivors_are_killed(weak_sandbox):
    daemon = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        time.sleep(60)\n    os._exit(0)\n"
        "time.sleep(0.2)\nprint(int(input()) * 2)"
    )
    start = time.monotonic()
    assert judge(weak_sandbox, daemon).verdict is Verdict.CORRECT  # nothing forbids it here
    assert time.monotonic() - start < 5  # although the daemon holds the output open
    is_clean(weak_sandbox)


def test_t1_fork_bomb_is_bounded_and_cleared(weak_sandbox):
    bomb = (
        "import os, time\nfor _ in range(200):\n    if os.fork() == 0:\n"
        "        time.sleep(30); os._exit(0)\nprint(14)"
    )
    assert judge(weak_sandbox, bomb).verdict is Verdict.RUNTIME_ERROR
    is_clean(weak_sandbox)


def test_t1_memory_of_many_children_is_added_up(weak_sandbox):
    source = (
        "import os, time\nfor _ in range(4):\n    if os.fork() == 0:\n"
        "        x = b'1' * (200 << 20)\n        time.sleep(20); os._exit(0)\n"
        "time.sleep(20)"
    )
    assert judge(weak_sandbox, source).verdict is Verdict.MEMORY_LIMIT
    is_clean(weak_sandbox)


def test_t1_zombies_and_environment(weak_sandbox, monkeypatch):
    monkeypatch.setenv("VR_SECRET_TOKEN", "14")
    source = (
        "import os\nfor _ in range(20):\n    if os.fork() == 0: os._exit(0)\n"
        "print(os.environ.get('VR_SECRET_TOKEN', 13))"
    )
    assert judge(weak_sandbox, source).verdict is Verdict.WRONG
    is_clean(weak_sandbox)
