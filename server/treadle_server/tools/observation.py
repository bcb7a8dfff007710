"""What an agent is shown of a tool's result."""


def clean(text: str) -> str:
    """The text with every lone surrogate replaced, so that it can be stored and sent."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def bounded(text: str, bytes_max: int) -> str:
    """At most `bytes_max` bytes of valid UTF-8, cut between characters, with a mark that says so."""
    encoded = clean(text).encode()
    if len(encoded) <= bytes_max:
        return encoded.decode()
    mark = f"\n[truncated: the result has {len(encoded)} bytes, at most {bytes_max} are shown]"
    if len(mark) >= bytes_max:
        return encoded[:bytes_max].decode(errors="ignore")
    return encoded[: bytes_max - len(mark)].decode(errors="ignore") + mark
