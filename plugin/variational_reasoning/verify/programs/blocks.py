"""Which fenced block of an answer is its program (stage 7)."""

import re

LANGUAGES = ("", "python", "python3", "py", "py3")

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n`]*$")


def extract_program(text: str) -> str | None:
    """The last complete fenced block whose language is Python or not named; None where there is none.

    Blocks of other languages are skipped, whatever their place. A fence closes at one of the same sign that is at least
    as long, so that a program may hold a text with shorter fences.
    """
    program, fence, language, lines = None, "", "", []
    for line in text.replace("\r\n", "\n").split(
        "\n"
    ):  # splitlines would also cut at U+2028 or a form feed in a program
        match = _FENCE.match(line)
        if not fence:
            if match:
                fence, language, lines = match[1], match[2].lower(), []
        elif (
            match
            and not match[2]
            and line.strip()[0] == fence[0]
            and len(match[1]) >= len(fence)
            and _is_bare(line)
        ):
            if language.strip("{}.") in LANGUAGES and any(part.strip() for part in lines):
                program = "\n".join(lines) + "\n"
            fence = ""
        else:
            lines.append(line)
    return program


def _is_bare(line: str) -> bool:
    return not line.strip().strip("`~")
