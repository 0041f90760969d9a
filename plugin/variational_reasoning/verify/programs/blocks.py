"""Which fenced block of an answer is its program (stage 7).

The last block that can be a program counts. Blocks that cannot be one are skipped:

    ```python
    def f(n): return 2 * n         a program: it defines something
    ```
    ```python
    print(f(5))                    an example: everything it uses is defined in an earlier block
    ```
    ```
    10                             a sample of the output: no language is named, and it does nothing
    ```

Blocks are parsed, never run, and only where there are several to choose from.
"""

import ast
import builtins
import contextlib
import re
from typing import NamedTuple

_LANGUAGE = re.compile(
    r"[\s{.]*(?:lang(?:uage)?-)?"  # `{.python}`, `language-python`
    r"(?:python|pypy|cpython|ipython|py)"
    r"(?:[-_]?3(?:\.\d+)*)?"  # `py3`, `python3.11`; Python 2 is another language
    r"(?![\w.+#-])",  # `python,linenos` and `python:main.py`, but not `python-repl` or `pycon`
    re.IGNORECASE,
)
_FILE_NAME = re.compile(r"\s*\S*\w\.py(?!\w)")
"""A block that is named by its file: `main.py`."""

_OPENING = re.compile(
    r"(?P<lead>[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?)"  # a fence may be the first of a list item
    r"(?P<marks>`{3,}|~{3,})(?P<info>[^`]*)"
)
_CLOSING = re.compile(r"(?P<lead>[ \t]*)(?P<marks>`{3,}|~{3,})[ \t]*")
_FURTHER_IN = 3
"""How many columns a closing fence may be indented more than the opening one.

A fence that is indented more belongs to the program, such as one in the docstring of a method.
"""

_MAX_PARSED = 100_000
"""Longer blocks are not parsed and count as programs."""

_ACTS = {"print", "write", "writelines", "open", "exec", "eval", "__import__"}
"""A script that names none of these, imports nothing and defines nothing cannot write anything."""

_READS = {"input", "stdin", "open"}
"""A block that names one of these reads a test's input, so it is not an example."""

# A line with which programs begin; a traceback has such lines further in.
_CODE_LINE = re.compile(r"^(?:def \w|class \w|import \w|from \S+ import |print\()", re.MULTILINE)


class CodeBlock(NamedTuple):
    """A complete fenced block. is_python: its fence says so; otherwise the fence says nothing."""

    text: str
    is_python: bool


class _Content(NamedTuple):
    """What the text of a block does.

    is_parsed: False for text that does not compile, or that is too long.
    defined: functions and classes. bound: all names that get a value. used: names and attributes
    that are read. free: names that are read and neither bound nor built in.
    """

    is_parsed: bool
    defined: set[str]
    bound: set[str]
    used: set[str]
    free: set[str]
    has_import: bool


def extract_program(text: str, function: str | None = None) -> str | None:
    """The program of an answer, or None where there is no complete block of Python.

    Args:
        text: the solution part of an answer.
        function: the function that the tests call; None for scripts. The program is then the last
            block that defines it.
    """
    blocks = python_blocks(text)
    if not blocks:
        return None
    if len(blocks) == 1:
        return blocks[0].text
    earlier: list[_Content] = []
    programs = []
    defining = []
    for block in blocks:
        content = _content(block.text)
        if _is_program(block, content, earlier):
            programs.append(block)
            # A block that does not compile may have been meant to define the function.
            if function in content.bound or not content.is_parsed:
                defining.append(block)
        earlier.append(content)
    if function is not None and defining:
        return defining[-1].text
    if programs:
        return programs[-1].text
    named = [block for block in blocks if block.is_python]
    return (named or blocks)[-1].text


def python_blocks(text: str) -> list[CodeBlock]:
    """The complete fenced blocks whose language is Python or not named. Empty ones are left out.

    A fence of the same sign that is at least as long closes a block. A program may therefore
    contain shorter fences.
    """
    blocks = []
    opening: re.Match[str] | None = None
    lines: list[str] = []
    # splitlines would also cut at U+2028 or a form feed in a program
    for line in text.replace("\r\n", "\n").split("\n"):
        if opening is None:
            opening = _OPENING.fullmatch(line)
            lines = []
        elif _closes(line, opening):
            block = _block(lines, opening["info"])
            if block is not None:
                blocks.append(block)
            opening = None
        else:
            lines.append(line)
    return blocks


def _closes(line: str, opening: re.Match[str]) -> bool:
    """Whether a line is the fence that ends the block of this opening one.

    The block of three backticks at column 2 is closed by three or more at column 5 or before.
    """
    closing = _CLOSING.fullmatch(line)
    if closing is None or not closing["marks"].startswith(opening["marks"]):
        return False
    return _width(closing["lead"]) <= _width(opening["lead"]) + _FURTHER_IN


def _width(lead: str) -> int:
    """Columns of what is before a fence."""
    return len(lead.expandtabs(4))


def _block(lines: list[str], info: str) -> CodeBlock | None:
    """The block of these lines; None for an empty one, and for one of another language."""
    is_python = bool(_LANGUAGE.match(info) or _FILE_NAME.match(info))
    is_unnamed = not info.strip(" \t{}.")
    if not is_python and not is_unnamed:
        return None
    code_lines = [line for line in lines if line.strip()]
    if not code_lines:
        return None
    # In a list item the whole block is indented, and a program whose first line is indented never
    # compiles.
    first = code_lines[0]
    num_margin = len(first) - len(first.lstrip())
    margin = first[:num_margin]
    unindented = [line.removeprefix(margin) for line in lines]
    return CodeBlock("\n".join(unindented) + "\n", is_python)


def _is_program(block: CodeBlock, content: _Content, earlier: list[_Content]) -> bool:
    if block.text.lstrip().startswith(">>>"):  # a session in the interpreter
        return False
    if not content.is_parsed:
        return block.is_python or bool(_CODE_LINE.search(block.text))
    can_write = bool(content.used & _ACTS)
    does_something = can_write or bool(content.defined) or content.has_import
    return does_something and not _is_example(content, earlier)


def _is_example(content: _Content, earlier: list[_Content]) -> bool:
    """Whether a block only calls functions and classes of earlier blocks, such as `print(f(5))`."""
    if not content.free or content.defined or content.used & _READS:
        return False
    defined: set[str] = set()
    for other in earlier:
        defined |= other.defined
    return content.free <= defined


def _content(text: str) -> _Content:
    """What a block does, as far as its syntax tree says."""
    nodes = None
    if len(text) <= _MAX_PARSED:
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            tree = ast.parse(text)
            nodes = list(ast.walk(tree))
    if nodes is None:
        return _Content(False, set(), set(), set(), set(), False)
    defined: set[str] = set()
    stored: set[str] = set()
    read: set[str] = set()
    attributes: set[str] = set()
    imported: set[str] = set()
    for node in nodes:
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                defined.add(name)
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if _has_lambda(value):
                defined.add(name)
            case ast.Name(id=name, ctx=ast.Load()):
                read.add(name)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                stored.add(name)
            case ast.Attribute(attr=name):
                attributes.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                imported.update(map(_imported_name, aliases))
    bound = defined | stored | imported
    return _Content(
        is_parsed=True,
        defined=defined,
        bound=bound,
        used=read | attributes,
        free=read - bound - set(dir(builtins)),
        has_import=bool(imported),
    )


def _imported_name(alias: ast.alias) -> str:
    """What an import binds: `np` for `numpy as np`, and `os` for `os.path`."""
    if alias.asname:
        return alias.asname
    package, _, _ = alias.name.partition(".")
    return package


def _has_lambda(value: ast.expr) -> bool:
    return any(isinstance(node, ast.Lambda) for node in ast.walk(value))
