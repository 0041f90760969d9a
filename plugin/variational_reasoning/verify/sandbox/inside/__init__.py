"""What runs inside a sandbox, in the interpreter of the programs (stage 7). Standard library only:
that interpreter may have nothing else, and every page of memory that a module takes costs each
fork.

`fork_server` is forked for every program, which `program` then holds; that process is forked for
every test, which `entry` runs, with the `names` and `streams` that it expects. `confine` takes
powers away; `filters` allows the system calls that `syscalls` lists.
"""
