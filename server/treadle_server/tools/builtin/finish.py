"""The end of the work."""

from typing import Annotated


async def finish(answer: Annotated[str, "The complete final answer, as the user is to read it"]) -> str:
    """Ends the work and gives the final answer to the user. Call it once, alone, when nothing is left to
    do; nothing after it is read."""
    return answer
