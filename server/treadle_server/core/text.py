"""Text that comes from outside, in a form that can be stored and sent."""


def clean(text: str) -> str:
    """The text with every lone surrogate replaced: UTF-8 has none."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def bounded(text: str, bytes_max: int) -> tuple[str, bool]:
    """At most `bytes_max` bytes of UTF-8, cut between characters with a mark, and whether it was cut."""
    encoded = clean(text).encode()
    if len(encoded) <= bytes_max:
        return encoded.decode(), False
    mark = f"\n[truncated: it has {len(encoded)} bytes, at most {bytes_max} are shown]"
    if len(mark) >= bytes_max:
        return encoded[:bytes_max].decode(errors="ignore"), True
    return encoded[: bytes_max - len(mark)].decode(errors="ignore") + mark, True
