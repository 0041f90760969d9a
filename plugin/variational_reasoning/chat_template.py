"""A model's own chat template as a function on messages.

`host` and `pipeline` both need it for `chat_format: template`; what is made of it is
`method.chat_formats.chat_format_of_template`.
"""

import functools
from collections.abc import Callable
from typing import Any

_DAY = "strftime_now"
"""The name by which a template asks for the day."""


@functools.lru_cache(maxsize=8)
def chat_template_of(model: str) -> Callable[[list[dict[str, str]], bool], str]:
    """(messages, add_generation_prompt) to text, with the tokenizer of a folder or of a model on
    the hub.

    The function raises ValueError for messages that the template refuses, such as a system message.

    Raises: ValueError for a tokenizer without a template, and for a template that writes today's
        date: its prompts would be others tomorrow.
    """
    import jinja2
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"chat_format: template needs the tokenizer of {model}: {reason}"
        ) from error
    template = tokenizer.chat_template
    if not isinstance(template, str):
        what = "has no chat template" if template is None else "has several chat templates"
        raise ValueError(
            f"chat_format: template: {model} {what}; name a chat format or a .json file instead"
        )
    if _DAY in template:
        raise ValueError(
            f"chat_format: template: the chat template of {model} writes today's date ({_DAY}), so "
            "its prompts would be others tomorrow; name a chat format (llama3 for Llama 3) or a "
            ".json file instead"
        )

    def apply(messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        try:
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
            return str(text)  # one conversation, and no ids
        except jinja2.TemplateError as error:
            raise ValueError(f"the chat template of {model}: {error}") from error

    return apply


def refuses_system(tokenizer: Any) -> bool:
    """Whether a tokenizer's chat template raises for a system message, as Gemma's does.

    LLaMA-Factory renders one to read a template, so it cannot train such a model unless the YAML
    says `template: empty`. Our formats do not use its template.
    """
    import jinja2

    if not isinstance(tokenizer.chat_template, str):
        return False
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    try:
        tokenizer.apply_chat_template(messages, tokenize=False)
    except jinja2.TemplateError:
        return True
    return False
