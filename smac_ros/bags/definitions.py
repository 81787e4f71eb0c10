"""Definitions of message types in recordings, beside those that are known here."""

from functools import lru_cache
from typing import Any

from smac_ros.message_types import FieldType, PathError, field_type, fields

_SAME = {"octet": "byte", "char": "uint8"}  # names of one thing in .idl and .msg


def is_known(type_name: str) -> bool:
    """Whether a type is standard or installed."""
    try:
        fields(type_name)
    except PathError:
        return False
    return True


@lru_cache(maxsize=256)
def difference(type_name: str, definition: str) -> str | None:
    """What a recording's definition of a type has that the one here has not, parts included.

    None where they are alike, where the type is not known here, and where the definition cannot
    be understood.
    """
    for name, (_, found) in _parsed(type_name, definition).items():
        theirs = [(field, _plain(field_type(kind))) for field, kind in found]
        if not theirs or not is_known(name):
            continue
        if theirs != [(field, _plain(kind)) for field, kind in fields(name).items()]:
            has = ", ".join(f"{kind.name} {field}" for field, kind in theirs)
            return f"another definition of {name}: {has}"
    return None


def _plain(kind: FieldType) -> FieldType:
    return kind._replace(name=_SAME.get(kind.name, kind.name))


def _parsed(type_name: str, definition: str) -> dict[str, Any]:
    from rosbags.typesys import TypesysError, get_types_from_idl, get_types_from_msg

    try:
        if "IDL: " in definition or "module " in definition:
            return get_types_from_idl(definition)
        return get_types_from_msg(definition, type_name)
    except (TypesysError, ValueError, KeyError):
        return {}
