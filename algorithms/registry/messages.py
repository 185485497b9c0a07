"""What pydantic says of a value, as one sentence in the user's words: key, rule, value, nearest name."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from parsecrl.algorithms.registry.user_functions import nearest

OWN = "module:name"  # what a key says of code of a user's own


def explain(error: ValidationError, data: Any, root: type[BaseModel]) -> str:
    """The first of the errors as one clause. A missing or unknown key is told before what follows from it.

    Args:
        error: Of validating `data`.
        data: As the user gave them; phases are told by their `name`.
        root: The model that `data` were validated with.

    Returns:
        Key, rule, value and nearest known name; and how many more mistakes there are.
    """
    problems = error.errors(include_url=False)
    first = min(problems, key=lambda p: p["type"] not in {"extra_forbidden", "missing"})
    location, context = first["loc"], first.get("ctx", {})
    path = _path(location, data)
    value = short(first.get("input"))
    match first["type"]:
        case "extra_forbidden":
            message = (
                f"{path} is not a known key{_nearest_key(str(location[-1]), _models_at(location[:-1], root, data))}"
            )
        case "missing":
            message = f"{path} is missing; set it"
        case "union_tag_invalid" | "union_tag_not_found":
            key = str(context["discriminator"]).strip("'()").removeprefix("model_")
            tags = re.findall("'([^']*)'", context.get("expected_tags", "")) or _tags(location, root, data, key)
            got = context.get("tag")
            message = f"{path}.{key} must be one of {', '.join(tags)}, got {got or 'nothing'}"
            message += nearest(str(got), tags) if got else ""
        case "value_error":
            detail = str(context["error"])
            message = detail if not path or path.rpartition(".")[2] in detail.split(".")[0] else f"{path}: {detail}"
            if path and path not in message:
                message = f"{path}: {message}"
        case "model_type" | "model_attributes_type" | "dict_type":
            message = f"{path} must be a group of keys, got {value}"
        case "literal_error":
            message = f"{path} must be {context['expected']}, got {value}"
            message += nearest(str(first.get("input")), re.findall("'([^']*)'", context["expected"]))
        case "registry":  # a sentence of `registry_error`
            reason = context["reason"]
            message = f"{path} {reason}" if reason.startswith("must") else f"{path}: {reason}"
        case "string_pattern_mismatch" if ":" in str(context["pattern"]):
            message = f"{path} must be {OWN}, got {value}"
        case "string_pattern_mismatch":
            message = f"{path} must be letters, digits, - and _, got {value}"
        case _:
            rule = first["msg"][:1].lower() + first["msg"][1:]
            rule = re.sub(r"^(input|list|string|dictionary) should", "must", rule).replace(" after validation", "")
            message = f"{path} {rule}, got {value}"
    more = len(problems) - 1
    return message + (f" (and {more} more mistake{'s' * (more > 1)})" if more else "")


def _path(location: Sequence[str | int], data: Any) -> str:
    """A dotted path in the user's words: phases by name, without the tags that pydantic adds for unions."""
    parts: list[str] = []
    for position, element in enumerate(location):
        if isinstance(data, list) and isinstance(element, int) and element < len(data):
            data = data[element]
            parts.append(str(data["name"]) if isinstance(data, dict) and "name" in data else str(element))
        elif isinstance(data, dict) and element in data:
            data = data[element]
            parts.append(str(element))
        elif position == len(location) - 1 and not (isinstance(data, dict) and element in data.values()):
            parts.append(str(element))
    return ".".join(parts)


def _models_at(location: Sequence[str | int], root: type[BaseModel], data: Any) -> list[type[BaseModel]]:
    """The models that the group at `location` may be: one, unless a union has no tag there.

    A model with a class method `chosen_by` stands for the one that this makes of the data there.
    """
    models: list[type[BaseModel]] = [root]
    for element in location:
        is_item = isinstance(data, list) and isinstance(element, int) and element < len(data)
        if is_item or (isinstance(data, dict) and element in data):
            data = data[element]
        if len(models) == 1 and element in models[0].model_fields:
            models = _models_in(models[0].model_fields[str(element)].annotation)
        elif len(models) > 1 and isinstance(element, str):
            models = [
                m
                for m in models
                if any(element in typing.get_args(f.annotation) for f in m.model_fields.values())
                or (element == OWN and "options" in m.model_fields)
            ]
        models = [model.chosen_by(data) if hasattr(model, "chosen_by") else model for model in models]
    return models


def _nearest_key(word: str, models: list[type[BaseModel]]) -> str:
    """The known key that looks most like `word`; one of a group further down if it is spelled exactly so."""
    known = [key for model in models for key in model.model_fields]
    if not difflib.get_close_matches(word, known, n=1):
        for model in models:
            for key, field in model.model_fields.items():
                if any(word in inner.model_fields for inner in _models_in(field.annotation)):
                    return f"; did you mean '{key}.{word}'?"
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.0)
    return f"; did you mean {close[0]!r}?" if close else ""


def _tags(location: Sequence[str | int], root: type[BaseModel], data: Any, discriminator: str) -> list[str]:
    """What the key may say that tells the models of a union apart."""
    fields = [model.model_fields[discriminator] for model in _models_at(location, root, data)]
    return [next(iter(typing.get_args(field.annotation)), OWN) for field in fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]


def short(value: Any) -> str:
    """A value as an error shows it.

    Args:
        value: Anything.

    Returns:
        Its repr, of 60 characters at most.
    """
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
