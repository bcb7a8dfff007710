"""Access by object: a credential with patterns reaches only threads and sessions whose object fits one."""

from treadle_server.core.errors import Reason, Refused
from treadle_server.core.objects import reaches
from treadle_server.services.keys import Identity


def check_reach(caller: Identity, parent_object: str, name: str) -> None:
    """Raises Refused(PARENT_FORBIDDEN) unless the caller reaches the object of what is named."""
    if reaches(caller.object_patterns, parent_object):
        return
    what = f"{name}, which is about {parent_object}" if parent_object else f"{name}, which is about no object"
    raise Refused(
        Reason.PARENT_FORBIDDEN,
        f"the credential does not reach {what}",
        metadata={"object_ids": parent_object},
    )


def check_reaches_all(caller: Identity, what: str) -> None:
    """Raises Refused(PARENT_FORBIDDEN) to who has patterns: what is wanted is about objects of others too."""
    if caller.object_patterns:
        text = f"the credential reaches some objects only, not {what}"
        raise Refused(Reason.PARENT_FORBIDDEN, text, metadata={"object_ids": ""})
