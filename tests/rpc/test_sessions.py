"""SessionService: sessions found, listed, labelled, deleted; what was said in them; their events."""

import asyncio
from typing import Any

import grpc

from tests.rpc.failures import failure_of
from tests.rpc.rig import Metadata, Rig, make_key
from tests.rpc.runs import (
    DEADLINE_SECONDS,
    HANG,
    Thread,
    create,
    ended,
    get,
    kinds,
    make_agent,
    pb,
    run,
    until_event,
)
from treadle.v1 import session_pb2, session_service_pb2

rpc: Any = session_service_pb2
Session: Any = session_pb2.Session
Message: Any = session_pb2.SessionMessage


async def lookup(rig: Rig, key: str, *, metadata: Metadata = ()) -> Any:
    return await rig.sessions.LookupSession(
        rpc.LookupSessionRequest(session_key=key), metadata=tuple(metadata)
    )


async def listed(rig: Rig, **fields: Any) -> list[str]:
    page = await rig.sessions.ListSessions(rpc.ListSessionsRequest(**fields))
    return [session.session_key for session in page.sessions]


async def said(rig: Rig, name: str, **fields: Any) -> list[tuple[str, str]]:
    """Who said what, over all pages."""
    found, token = [], ""
    while True:
        request = rpc.ListSessionMessagesRequest(parent=name, page_token=token, **fields)
        page = await rig.sessions.ListSessionMessages(request)
        found += [(Message.Role.Name(each.role), each.content.text) for each in page.messages]
        token = page.next_page_token
        if not token:
            return found


async def test_a_session_is_found_by_its_key_and_shows_what_it_is(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)

    thread = await create(rig, "t1", session_key="ticket-7", context={"initial": "Be brief."})
    found = await lookup(rig, "ticket-7")

    assert found.name == thread.session
    assert (found.session_key, found.display_id) == ("ticket-7", "S-1")
    assert (found.agent, found.parent_object) == ("agents/helper", "")
    assert found.context_initial == "Be brief."
    assert found.create_time == found.update_time
    assert found == await rig.sessions.GetSession(rpc.GetSessionRequest(name=found.name))


async def test_a_session_names_the_thread_that_is_in_it(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)
    await create(rig, "t1", session_key="room")
    await create(rig, "t2", session_key="room")

    await until_event(rig, "threads/t1", "model_call_started")
    during = await lookup(rig, "room")
    for name in ("threads/t2", "threads/t1"):
        await rig.threads.CancelThread(pb.CancelThreadRequest(name=name))
    after = await lookup(rig, "room")

    assert during.active_thread == "threads/t1"
    assert after.active_thread == ""


async def test_sessions_are_counted_within_their_tenant(rig: Rig) -> None:
    for tenant in ("red", "blue"):
        await make_key(rig, tenant)
        metadata = (("treadle-tenant", tenant),)
        await make_agent(rig, metadata=metadata)
        for key in ("a", "b"):
            await run(rig, session_key=key, metadata=metadata)

    found = [
        (await lookup(rig, key, metadata=(("treadle-tenant", tenant),))).display_id
        for tenant in ("red", "blue")
        for key in ("a", "b")
    ]

    assert found == ["S-1", "S-2", "S-1", "S-2"]


async def test_a_key_that_nobody_gave_and_a_name_that_nobody_has_are_not_found(rig: Rig) -> None:
    failures = [
        await failure_of(lookup(rig, "nothing")),
        await failure_of(rig.sessions.GetSession(rpc.GetSessionRequest(name="sessions/none"))),
        await failure_of(rig.sessions.DeleteSession(rpc.DeleteSessionRequest(name="sessions/none"))),
    ]

    assert {failure.code for failure in failures} == {grpc.StatusCode.NOT_FOUND}
    assert {failure.reason for failure in failures} == {"RESOURCE_NOT_FOUND"}


async def test_sessions_are_listed_newest_first_by_page_and_filter(rig: Rig) -> None:
    await make_agent(rig, "one")
    await make_agent(rig, "two")
    for number in range(5):
        await run(rig, agent="two" if number == 3 else "one", session_key=f"k{number}")
    labelled = await lookup(rig, "k1")
    labelled.labels["team"] = "a"
    await rig.sessions.UpdateSession(rpc.UpdateSessionRequest(session=labelled))

    first = await rig.sessions.ListSessions(rpc.ListSessionsRequest(page_size=2))
    second = await rig.sessions.ListSessions(
        rpc.ListSessionsRequest(page_size=2, page_token=first.next_page_token)
    )
    last = await rig.sessions.ListSessions(
        rpc.ListSessionsRequest(page_size=2, page_token=second.next_page_token)
    )

    pages = [[each.session_key for each in page.sessions] for page in (first, second, last)]
    assert pages == [["k4", "k3"], ["k2", "k1"], ["k0"]]
    assert last.next_page_token == ""
    assert await listed(rig, filter="agent = agents/two") == ["k3"]
    assert await listed(rig, filter='labels.team = "a"') == ["k1"]
    assert await listed(rig, filter="labels:team AND agent = agents/two") == []
    assert await listed(rig, filter='session_key = "k0" OR session_key = "k2"') == ["k2", "k0"]
    refused = await failure_of(rig.sessions.ListSessions(rpc.ListSessionsRequest(filter="colour = red")))
    assert refused.reason == "FIELD_INVALID"


async def test_labels_are_replaced_and_everything_else_stays(rig: Rig) -> None:
    await make_agent(rig)
    await run(rig, session_key="room")
    before = await lookup(rig, "room")

    changed = await rig.sessions.UpdateSession(
        rpc.UpdateSessionRequest(
            session={"name": before.name, "labels": {"team": "a"}, "session_key": "another"},
            request_id="r1",
        )
    )
    again = await rig.sessions.UpdateSession(
        rpc.UpdateSessionRequest(
            session={"name": before.name, "labels": {"team": "a"}, "session_key": "another"},
            request_id="r1",
        )
    )
    stale = await failure_of(
        rig.sessions.UpdateSession(
            rpc.UpdateSessionRequest(session={"name": before.name, "etag": before.etag, "labels": {"x": "y"}})
        )
    )
    wrong = await failure_of(
        rig.sessions.UpdateSession(
            rpc.UpdateSessionRequest(
                session={"name": before.name}, update_mask={"paths": ["context_initial"]}
            )
        )
    )

    assert dict(changed.labels) == {"team": "a"}
    assert (changed.session_key, changed.create_time) == ("room", before.create_time)
    assert again == changed == await lookup(rig, "room")
    assert (stale.code, stale.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert wrong.reason == "FIELD_INVALID"


async def test_a_deleted_session_frees_its_key_and_leaves_its_threads(rig: Rig) -> None:
    await make_agent(rig)
    thread = await run(rig, "t1", session_key="room")

    await rig.sessions.DeleteSession(rpc.DeleteSessionRequest(name=thread.session, request_id="r1"))
    await rig.sessions.DeleteSession(rpc.DeleteSessionRequest(name=thread.session, request_id="r1"))

    gone = await failure_of(lookup(rig, "room"))
    refused = await failure_of(create(rig, session=thread.session))
    anew = await run(rig, "t2", session_key="room")
    assert gone.reason == refused.reason == "RESOURCE_NOT_FOUND"
    assert anew.session != thread.session
    assert (await get(rig, "threads/t1")).session == thread.session
    assert await listed(rig) == ["room"]


async def test_a_session_with_a_thread_at_work_is_deleted_only_by_force(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)
    thread = await create(rig, "t1", session_key="room")
    await create(rig, "t2", session_key="room")

    refused = await failure_of(rig.sessions.DeleteSession(rpc.DeleteSessionRequest(name=thread.session)))
    await rig.sessions.DeleteSession(rpc.DeleteSessionRequest(name=thread.session, force=True))

    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_BUSY")
    assert refused.metadata == {"session": thread.session, "thread": "threads/t1"}
    states = [(await get(rig, name)).state for name in ("threads/t1", "threads/t2")]
    assert states == [Thread.CANCELLED] * 2
    assert (await failure_of(lookup(rig, "room"))).reason == "RESOURCE_NOT_FOUND"


async def test_what_was_said_is_listed_in_order_by_pages(rig: Rig) -> None:
    await make_agent(rig, "helper", {"text": "Hello."})
    first = await run(rig, "t1", session_key="room", input={"text": "Good morning."})
    await run(rig, "t2", session_key="room", input={"text": "Good evening."})
    await run(rig, "t3", session_key="elsewhere", input={"text": "Not here."})

    whole = [
        ("USER", "Good morning."),
        ("AGENT", "Hello."),
        ("USER", "Good evening."),
        ("AGENT", "Hello."),
    ]
    assert await said(rig, first.session) == whole
    assert await said(rig, first.session, page_size=1) == whole
    await rig.threads.DeleteThread(pb.DeleteThreadRequest(name="threads/t1"))
    assert await said(rig, first.session) == whole[2:]


async def test_a_message_says_where_its_event_is(rig: Rig) -> None:
    await make_agent(rig, "helper", {"text": "Hello."})
    thread = await run(rig, "t1", session_key="room")

    page = await rig.sessions.ListSessionMessages(rpc.ListSessionMessagesRequest(parent=thread.session))

    asked, answered = page.messages
    assert {each.thread for each in page.messages} == {"threads/t1"}
    assert (asked.sequence, asked.event_time) == (2, thread.create_time)
    assert (answered.sequence, answered.event_time) == (thread.last_sequence, thread.end_time)


async def test_a_watch_of_a_session_shows_its_threads_and_no_others(rig: Rig) -> None:
    await make_agent(rig)
    first = await run(rig, "t1", session_key="room")
    stream = rig.sessions.WatchSession(
        rpc.WatchSessionRequest(name=first.session, event_types=["thread_ended"])
    )
    async with asyncio.timeout(DEADLINE_SECONDS):
        begin = (await stream.read()).cursor
        await run(rig, "t2", session_key="elsewhere")
        await run(rig, "t3", session_key="room")
        found = await stream.read()
    stream.cancel()

    assert [(event.thread, kinds([event])[0]) for event in found.events] == [("threads/t3", "thread_ended")]
    again = rig.sessions.WatchSession(rpc.WatchSessionRequest(name=first.session, after_cursor=begin))
    async with asyncio.timeout(DEADLINE_SECONDS):
        threads = {event.thread for _ in range(2) for event in (await again.read()).events if event.sequence}
    again.cancel()
    assert threads == {"threads/t3"}
    foreign = rpc.WatchSessionRequest(name=(await lookup(rig, "elsewhere")).name, after_cursor=begin)
    assert (await failure_of(rig.sessions.WatchSession(foreign).read())).reason == "FIELD_INVALID"
    assert (await ended(rig, "threads/t3")).state == Thread.COMPLETED
