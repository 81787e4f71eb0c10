"""What is wrong with a YAML file, for people: line, key, found, expected.

Knows nothing of what a file has in it: that is ``contract_schema``, for contracts.
"""

import difflib
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from smac_core.errors import InputError

Model = TypeVar("Model", bound=BaseModel)

_EXPECTED = {
    "tuple_type": "a list",
    "float_type": "a number",
    "string_type": "text (quote it if it looks like a number)",
    "string_too_short": "some text",
    "finite_number": "a finite number",
    "too_short": "at least one entry",
    "too_long": "one entry",
    "int_type": "a whole number",
    "dict_type": "a mapping",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
}


def problem(at: Sequence[str | int], found: object, expected: str) -> PydanticCustomError:
    """An error at a key inside the model that raises it."""
    context = {"at": tuple(at), "found": str(found), "expected": expected}
    return PydanticCustomError("contract", "{found}", context)


def parse_yaml(
    text: str, source: str | Path, model: type[Model], keys: str, context: dict[str, Any]
) -> Model:
    """Validate YAML by a model.

    Args:
        source: where the text comes from, for errors.
        keys: such as "name, domain, ...", for an error.
        context: what the model's validators are given.

    Raises:
        InputError: with every problem found, each with its line.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        tree = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: of a date that is none
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else "text"
        raise InputError(source, place, getattr(error, "problem", error), "YAML") from None
    if not isinstance(tree, dict):
        kind = "nothing" if tree is None else type(tree).__name__
        raise InputError(source, "line 1", kind, f"a mapping of keys: {keys}")
    problems = repeated_keys(node, ())
    try:
        made = model.model_validate(tree, context=context)
    except ValidationError as error:
        problems += [explain(details, node, model) for details in telling(error.errors())]
    if problems:
        (field, found, expected), *rest = (
            (f"line {line}: {key}", found, expected)
            for line, key, found, expected in sorted(problems)
        )
        for other, other_found, other_expected in rest:
            expected += f"\n{source}: {other}: found {other_found}; expected {other_expected}"
        raise InputError(source, field, found, expected)
    return made


def telling(errors: list[Any]) -> Iterator[dict[str, Any]]:
    """Errors without those that follow from another one."""
    unknown: dict[tuple, list[str]] = {}  # section -> keys
    for details in errors:
        if details["type"] == "extra_forbidden":
            unknown.setdefault(details["loc"][:-1], []).append(str(details["loc"][-1]))
    for details in errors:
        *section, key = details["loc"] or ("",)
        misspelt = unknown.get(tuple(section), [])
        if details["type"] == "missing" and difflib.get_close_matches(str(key), misspelt, n=1):
            continue
        if details["type"] == "too_short" and details["input"]:
            continue  # of a list with an entry that is wrong itself
        yield details


def explain(
    details: dict[str, Any], root: yaml.Node, model: type[BaseModel]
) -> tuple[int, str, str, str]:
    """(line, key, found, expected) of one of pydantic's errors about ``model``."""
    kind, context = details["type"], details.get("ctx", {})
    location = (*details["loc"], *context.get("at", ()))
    found, expected = repr(details["input"]), _EXPECTED.get(kind, details["msg"])
    if kind == "contract":
        found, expected = context["found"], context["expected"]
    elif kind == "missing":
        section = _section(model, location[:-1])
        what = section.model_fields[location[-1]].description if section else None
        found, expected = "nothing", what or "this key"
    elif kind == "extra_forbidden":
        found = f"the unknown key {location[-1]!r}"
        expected = one_of(str(location[-1]), list(_section(model, location[:-1]).model_fields))
    elif kind == "literal_error":
        options = [option.strip("' ") for option in re.split(", | or ", context["expected"])]
        expected = one_of(details["input"], options)
    elif kind == "greater_than":
        expected = f"a number above {context['gt']:g}"
    elif kind == "greater_than_equal":
        expected = f"a number not below {context['ge']:g}"
    elif kind == "float_type" and _reads_as_number(details["input"]):
        expected = "a number (YAML takes 1e-3 for text: write 1.0e-3)"
    return _line(root, location), _key(location), found, expected


def _section(model: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel] | None:
    """The model that a location in ``model`` is in."""
    section = model
    for part in location:
        if part not in section.model_fields:  # an index of a list, or a name in a mapping
            continue
        annotation = section.model_fields[part].annotation
        options = [annotation, *typing.get_args(annotation)]
        models = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if not models:
            return None
        section = models[0]
    return section


def _line(node: yaml.Node, location: Sequence[str | int]) -> int:
    """Line, from 1, of a key's value, or of the nearest part that is there."""
    line = node.start_mark.line
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == str(part)]
            if not pairs:
                break
            key, node = pairs[-1]
            line = key.start_mark.line
        elif isinstance(node, yaml.SequenceNode) and part in range(len(node.value)):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return line + 1


def repeated_keys(
    node: yaml.Node, location: tuple[str | int, ...]
) -> list[tuple[int, str, str, str]]:
    """Keys that a mapping has twice: YAML would silently take the last."""
    problems = []
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            problems += repeated_keys(child, (*location, index))
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, child in node.value:
            place = (*location, str(key.value))
            if key.value in seen:
                line = key.start_mark.line + 1
                problems.append((line, _key(place), "the key a second time", "each key once"))
            seen.add(key.value)
            problems += repeated_keys(child, place)
    return problems


def _key(location: Sequence[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".") or "contract"


def one_of(found: object, known: Sequence[str]) -> str:
    """What is known, and which of it was perhaps meant."""
    close = difflib.get_close_matches(str(found), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"one of {', '.join(known)}{hint}"


def counted(number: int, what: str) -> str:
    """Such as "2 names"."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def listed(parts: Sequence[str]) -> str:
    """With commas, where there are many the first and the last."""
    return ", ".join(parts) if len(parts) <= 6 else f"{', '.join(parts[:5])}, ..., {parts[-1]}"


def ordered(pair: object) -> tuple[float, float]:
    """``pair`` as (low, high); raises ``problem``."""
    numbers = isinstance(pair, (list, tuple)) and [is_number(number) for number in pair]
    if numbers != [True, True] or pair[0] >= pair[1]:
        raise problem((), pair, "[low, high]: two finite numbers, low < high")
    return float(pair[0]), float(pair[1])


def is_number(value: object) -> bool:
    """Whether it is finite, and neither text nor true or false."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) < float("inf")
    )


def _reads_as_number(value: object) -> bool:
    try:
        return isinstance(value, str) and is_number(float(value))
    except ValueError:
        return False
