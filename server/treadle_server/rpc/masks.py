"""Update masks: which fields of a resource a caller changes."""

from collections.abc import Iterable
from typing import cast

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from treadle_server.core.errors import Refused, invalid

_IDENTITY = frozenset({"name", "etag"})


def apply(mask: FieldMask, wanted: Message, present: Message, only: frozenset[str] = frozenset()) -> None:
    """Changes `present` as the mask says: no paths = what `wanted` has set, `*` = everything.

    With `only`, these fields alone can be changed. Output-only fields, name and etag are left alone. Raises
    Refused(FIELD_INVALID) for a path that there is not.
    """
    changeable = only or _changeable(cast(Descriptor, present.DESCRIPTOR))
    paths = list(mask.paths)
    if not paths:
        paths = [field.name for field, _ in wanted.ListFields() if field.name in changeable]
    elif "*" in paths:
        if len(paths) > 1:
            raise _unknown("*", "must stand alone")
        paths = sorted(changeable)
    for path in paths:
        _apply_path(path, wanted, present, changeable, strict=bool(only))


def _apply_path(
    path: str, wanted: Message, present: Message, changeable: Iterable[str], *, strict: bool
) -> None:
    steps = path.split(".")
    if steps[0] not in changeable:
        known = steps[0] in present.DESCRIPTOR.fields_by_name
        if strict or not known:
            raise _unknown(path, "cannot be changed" if known else "is no field")
        return
    _copy(path, steps, wanted, present)


def _copy(path: str, steps: list[str], wanted: Message, present: Message) -> None:
    """Sets one field, or one field of a message in it, to what it is in `wanted`."""
    field = cast(Descriptor, present.DESCRIPTOR).fields_by_name.get(steps[0])
    if field is None:
        raise _unknown(path, "is no field")
    if len(steps) == 1:
        present.ClearField(field.name)
        _set(field, wanted, present)
        return
    if field.is_repeated or field.message_type is None:
        raise _unknown(path, f"goes beyond {field.name}, which is set as a whole")
    _copy(path, steps[1:], getattr(wanted, field.name), getattr(present, field.name))


def _set(field: FieldDescriptor, wanted: Message, present: Message) -> None:
    name = field.name
    if field.is_repeated:
        getattr(present, name).MergeFrom(getattr(wanted, name))
    elif field.message_type is not None:
        if wanted.HasField(name):
            getattr(present, name).CopyFrom(getattr(wanted, name))
    elif not field.has_presence or wanted.HasField(name):
        setattr(present, name, getattr(wanted, name))


def _changeable(descriptor: Descriptor) -> frozenset[str]:
    return frozenset(
        field.name
        for field in descriptor.fields
        if field.name not in _IDENTITY
        and field_behavior_pb2.OUTPUT_ONLY
        not in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    )


def _unknown(path: str, why: str) -> Refused:
    return invalid(("update_mask", f"path {path!r} {why}"))
