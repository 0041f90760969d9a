"""The reference of every configuration key, from the code: docs/configuration.md and
docs/pipeline.schema.json.

An editor completes the keys of a pipeline.yaml by the schema, which the first line of the file
names.
"""

import ast
import dataclasses
import inspect
import io
import json
import sys
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from variational_reasoning.host.args import VariationalArguments
from variational_reasoning.pipeline.commands import run_command
from variational_reasoning.pipeline.config import Config

DOCS = Path(__file__).parent
USAGE = """usage: python docs/reference.py
Writes docs/configuration.md and docs/pipeline.schema.json (make reference)."""
HEAD = """# Configuration

This page is generated from the code: `make reference` writes it. Loading is strict. An unknown key, a
wrong type or a value out of bounds is a fault with the key's dotted name, and all faults of a file and
of its command-line overrides are shown together. Every key can be set on a command line, such as
`sampling.num_traces=4`. Paths are relative to the working directory.

An editor with a YAML language server completes and checks the keys by `docs/pipeline.schema.json`,
which the first line of every pipeline.yaml names.
"""
TRAINING_HEAD = """
## Training YAML

The keys that the plugin adds to LLaMA-Factory's. [Training keys](training.md) explains them.
"""
TYPE_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean"}
LIMITS = {"at_least": "minimum", "above": "exclusiveMinimum", "at_most": "maximum"}


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a section: its type, its default, its limits, and the comment at its definition."""

    name: str
    type: Any
    default: Any
    limits: dict[str, float]
    text: str


def keys_of(section: type) -> Iterator[Key]:
    """The keys of a section in the order of the code. All that knows how sections are written."""
    comments = comments_of(section)
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        limits = {}
        for name in LIMITS:
            limit = field.metadata.get(name)
            if limit is not None:
                limits[name] = limit
        text = field.metadata.get("help", comments.get(field.name, ""))
        yield Key(field.name, hints[field.name], default, limits, text)


def comments_of(section: type) -> dict[str, str]:
    """Field name -> the comment lines above its definition and the comment at its end."""
    source = textwrap.dedent(inspect.getsource(section))
    comments = {}
    whole_lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.removeprefix("#").strip()
            if token.line.strip().startswith("#"):
                whole_lines.add(token.start[0])
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno
            while first - 1 in whole_lines:
                first -= 1
            lines = range(first, (node.end_lineno or node.lineno) + 1)
            found[node.target.id] = " ".join(comments[line] for line in lines if line in comments)
    return found


def without_none(hint: Any) -> tuple[Any, bool]:
    """(the type, whether None is allowed too)."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        return parts[0], type(None) in typing.get_args(hint)
    return hint, False


def section_in(hint: Any) -> type | None:
    """The section that a type is, has in its list, or allows next to plain values."""
    sections = [part for part in [hint, *typing.get_args(hint)] if dataclasses.is_dataclass(part)]
    return typing.cast(type, sections[0]) if sections else None


def type_schema(hint: Any) -> dict[str, Any]:
    """The JSON schema of a type that the sections use."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    section = section_in(hint) if is_union else None
    hint, may_be_null = without_none(hint)
    if section is not None:
        return {"anyOf": [type_schema(hint), section_schema(section)]}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        # A section without any key is null in YAML.
        return section_schema(typing.cast(type, hint)) | {"type": ["object", "null"]}
    if origin is Literal:
        schema: dict[str, Any] = {"enum": [*arguments, *([None] if may_be_null else [])]}
    elif origin is list:
        schema = {"type": "array", "items": type_schema(arguments[0])}
    elif origin is dict:
        values = {} if arguments[1] is Any else type_schema(arguments[1])
        schema = {"type": "object", "additionalProperties": values}
    else:
        name = TYPE_NAMES[hint]
        schema = {"type": [name, "null"] if may_be_null else name}
    return schema


def section_schema(section: type) -> dict[str, Any]:
    """The JSON schema of a section, with its sections."""
    properties = {}
    for key in keys_of(section):
        schema = type_schema(key.type)
        schema |= {LIMITS[name]: limit for name, limit in key.limits.items()}
        if key.text:
            schema["description"] = key.text
        if not dataclasses.is_dataclass(key.default):
            schema["default"] = key.default
        properties[key.name] = schema
    return {
        "type": "object",
        "description": inspect.cleandoc(section.__doc__ or ""),
        "additionalProperties": False,
        "properties": properties,
    }


def subsections(section: type, name: str = "") -> Iterator[tuple[str, type]]:
    """(dotted name, section) of a section and of all below it, each before its own."""
    yield name, section
    for key in keys_of(section):
        below = section_in(key.type)
        if below is not None:
            yield from subsections(below, f"{name}.{key.name}".strip("."))


def type_text(key: Key) -> str:
    """A key's type and limits as a reader understands them."""
    hint, may_be_null = without_none(key.type)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        text = ", ".join(f"`{value}`" for value in arguments)
    elif origin is list:
        is_section = dataclasses.is_dataclass(arguments[0])
        text = "list of sections" if is_section else f"list of {arguments[0].__name__}"
    elif origin is dict:
        text = f"mapping of text to {'values' if arguments[1] is Any else 'text'}"
    else:
        text = {str: "text", int: "whole number", float: "number", bool: "true or false"}[hint]
    if not isinstance(hint, type) and key.type != hint and section_in(key.type) is not None:
        text += ", or a section"
    signs = {"at_least": "at least", "above": "above", "at_most": "at most"}
    limits = [f"{signs[name]} {limit:g}" for name, limit in key.limits.items()]
    return ", ".join([text, *limits, *(["or null"] if may_be_null else [])])


def table(section: type) -> str:
    """A section's own keys as a table of Markdown."""
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for key in keys_of(section):
        if not dataclasses.is_dataclass(without_none(key.type)[0]):
            default = json.dumps(key.default) if key.default != "" else ""
            default = f"`{default.strip(chr(34))}`" if default else ""
            meaning = key.text.replace("|", "\\|").replace("<", "&lt;")
            lines.append(f"| `{key.name}` | {type_text(key)} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """docs/configuration.md."""
    parts = [HEAD]
    for name, section in subsections(Config):
        text = inspect.cleandoc(section.__doc__ or "").replace("<", "&lt;")
        parts.append(f"\n## {name or 'The top level'}\n\n{text}\n\n{table(section)}")
    parts += [TRAINING_HEAD, "\n", table(VariationalArguments)]
    return "".join(parts)


def schema_text() -> str:
    """docs/pipeline.schema.json."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "pipeline.yaml"}
    return json.dumps(head | section_schema(Config), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(USAGE)
        return
    (DOCS / "configuration.md").write_text(page(), encoding="utf-8")
    (DOCS / "pipeline.schema.json").write_text(schema_text(), encoding="utf-8")
    print("wrote docs/configuration.md and docs/pipeline.schema.json")


if __name__ == "__main__":
    run_command(main)
