"""Bugs to plant: edits of the server's source, tests that should fail, invariants that should say why.

Every invariant is broken by one of them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """Text that occurs once in a file of the server, and what takes its place."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Bug:
    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    """Files or tests below tests/faults, one of which should fail."""
    breaks: tuple[str, ...] = ()
    """Names of invariants that should say so."""


_TRANSACTIONS = "stores/sqlite/transactions.py"
_DELIVERY = "stores/sqlite/delivery.py"
_BEFORE_COMMIT = """            if failpoints.ACTIVE:
                _pass_requests("request.before", batch)
"""
_AFTER_COMMIT = """            _pass_requests("request.after", batch)
            _pass_records("commit.after", batch)
"""
_ORDER = "test_commit_order.py"
_EVENTS = (
    "test_kill_at_every_event.py::test_a_run_killed_at_any_stored_event_has_the_log_of_a_run_that_was_not"
)

_FEW = "test_fault_run.py::test_promises_hold_through_a_few_kills"
_STEP = "test_kill_within_a_step.py"
_ENDING = "core/ending.py"
_REPLIES = "core/replies.py"
_DECISIONS = "core/decisions.py"

BUGS: tuple[Bug, ...] = (
    Bug(
        "publish before commit",
        (
            Edit(
                _TRANSACTIONS,
                _BEFORE_COMMIT,
                "            self._delivery.post(self._delivery.tell, list(batch))\n" + _BEFORE_COMMIT,
            ),
            Edit(
                _DELIVERY,
                "    def _deliver(self, batch: Sequence[WorkTicket]) -> None:\n",
                "    def tell(self, batch: Sequence[WorkTicket]) -> None:\n",
            ),
            Edit(
                _DELIVERY,
                "        for ticket in batch:\n            ticket.resolve()\n",
                "\n    def _deliver(self, batch: Sequence[WorkTicket]) -> None:\n"
                "        for ticket in batch:\n            ticket.resolve()\n",
            ),
        ),
        (_ORDER,),
        ("what_was_sent_is_what_is_stored",),
    ),
    Bug(
        "acknowledge before commit",
        (
            Edit(
                _TRANSACTIONS,
                _BEFORE_COMMIT,
                "            for ticket in batch:\n                self._delivery.post(ticket.resolve)\n"
                + _BEFORE_COMMIT,
            ),
        ),
        (_ORDER,),
        ("acknowledged_threads_are_there",),
    ),
    Bug(
        "commits are not synced",
        (
            Edit(
                "stores/sqlite/database.py",
                '"PRAGMA synchronous = FULL"',
                '"PRAGMA synchronous = NORMAL"',
            ),
        ),
        ("test_power_loss.py::test_nothing_acknowledged_is_lost_when_power_fails_at_any_point",),
    ),
    Bug(
        "request id in a second transaction",
        (
            Edit(
                "stores/sqlite/append.py",
                "            steps.append(remember(unit.key.tenant, unit.request))\n",
                "            pass\n",
            ),
            Edit(
                _TRANSACTIONS,
                "import REFUSALS, needs_savepoint",
                "import REFUSALS, needs_savepoint, remember",
            ),
            Edit(
                _TRANSACTIONS,
                _AFTER_COMMIT,
                _AFTER_COMMIT
                + """        for ticket in batch:
            unit = getattr(ticket.work, "unit", None)
            if ticket.error is None and unit is not None and unit.request is not None:
                remember(unit.key.tenant, unit.request).apply(self._cursor)
""",
            ),
        ),
        ("test_request_ids.py",),
        ("a_request_id_has_one_thread",),
    ),
    Bug(
        "resume one too early",
        (Edit("feed/feed.py", "Subscriber(watch.after,", "Subscriber(max(0, watch.after - 1),"),),
        (_EVENTS, "test_request_ids.py"),
        ("watchers_were_sent_every_event_once",),
    ),
    Bug(
        "resume one too late",
        (Edit("feed/feed.py", "Subscriber(watch.after,", "Subscriber(watch.after + bool(watch.after),"),),
        (_EVENTS, "test_request_ids.py"),
        ("watchers_were_sent_every_event_once",),
    ),
    Bug(
        "no durable intent",
        (
            Edit(
                "engine/driver.py",
                "        if approved or command.effect is not Effect.READ_ONLY:\n"
                "            await self.head.durable()\n",
                "        if approved:\n            await self.head.durable()\n",
            ),
        ),
        (_ORDER,),
        ("effects_come_after_their_intents",),
    ),
    Bug(
        "a call at most once is repeated after a crash",
        (
            Edit(
                "core/replies.py",
                "    return [call for call in state.calls.values() if call.in_flight and call.effect is "
                "Effect.AT_MOST_ONCE]\n",
                "    return []\n",
            ),
        ),
        ("test_kill_within_a_step.py",),
        ("calls_at_most_once_were_made_at_most_once",),
    ),
    Bug(
        "a new idempotency key for every attempt",
        (
            Edit(
                "engine/steps.py",
                "idempotency_key(head.key.tenant, head.key.thread, command.call_id)",
                'idempotency_key(head.key.tenant, head.key.thread, f"{command.call_id}/{command.attempt}")',
            ),
        ),
        ("test_kill_within_a_step.py",),
        ("a_call_keeps_its_key",),
    ),
    Bug(
        "begun threads are not taken up",
        (
            Edit(
                "engine/recovery.py",
                "        engine.enqueue(row.key, subject_of(row), limits.max_concurrent_threads, "
                "row.create_time, rate)\n",
                "        pass\n",
            ),
        ),
        (_FEW,),
        (
            "all_threads_have_ended_or_wait_for_something",
            "callers_are_answered_as_promised",
        ),
    ),
    Bug(
        "a shutdown waits for no call",
        (
            Edit(
                "engine/driver.py",
                "            if _repeatable(running.command):\n                del",
                "            if True:\n                del",
            ),
        ),
        ("test_shutdown.py",),
    ),
    Bug(
        "a shutdown says that streams are complete",
        (
            Edit(
                "feed/feed.py",
                "            raise Refused(Reason.DRAINING, text, retry_after_micros=1_000_000)\n",
                "            raise StopAsyncIteration(text)\n",
            ),
        ),
        ("test_shutdown.py",),
    ),
    Bug(
        "no group commit",
        (Edit(_TRANSACTIONS, "while byte_count < BYTES_MAX and", "while byte_count < 0 and"),),
        ("test_two_hundred_threads.py",),
    ),
    Bug(
        "an end is not the one that was asked for",
        (
            Edit(
                _ENDING,
                "    end(draft, pending.target_state, pending.stop_reason, output=pending.output",
                "    end(draft, ThreadState.FAILED, pending.stop_reason, output=pending.output",
            ),
        ),
        (_FEW,),
        ("acknowledged_ends_hold", "ends_have_a_reason_of_the_table"),
    ),
    Bug(
        "a cancel only says that it did",
        (
            Edit(
                "services/controls.py",
                "state = await self._engine.ask(row.key, ask, request)",
                "return await self._reads.get(caller, name, full=True)",
            ),
        ),
        (_FEW,),
        ("acknowledged_ends_hold", "nothing_begins_after_an_acknowledged_end"),
    ),
    Bug(
        "a list of events lacks one",
        (
            Edit(
                "rpc/threads.py",
                "Item(found.sequence, found.record.body) for found in page.records]\n        token",
                "Item(found.sequence, found.record.body) for found in page.records if found.sequence != 5]\n"
                "        token",
            ),
        ),
        (_FEW,),
        ("logs_are_numbered_without_holes",),
    ),
    Bug(
        "events of one commit are shown in another order",
        (
            Edit(
                "feed/feed.py",
                "[(record.kind, record.body) for record in unit.records])",
                "[(r.kind, r.body) for r in (*reversed(unit.records[:-1]), unit.records[-1])])",
            ),
        ),
        (_FEW,),
        ("what_was_sent_is_what_is_stored",),
    ),
    Bug(
        "a thread's tokens are not summed",
        (
            Edit(
                "core/evolve.py",
                "    state.usage = state.usage.plus(payload.usage)\n",
                "    state.usage = payload.usage\n",
            ),
        ),
        (_FEW,),
        ("a_thread_is_what_its_log_tells",),
    ),
    Bug(
        "something follows the end",
        (
            Edit(
                _ENDING,
                "    draft.add(e.ThreadEnded(to_state, reason, output, error, state.usage, state.cost))\n",
                "    draft.add(e.ThreadEnded(to_state, reason, output, error, state.usage, state.cost))\n"
                "    if to_state is ThreadState.CANCELLED:\n"
                '        draft.add(e.OutputRejected("late", "late"))\n',
            ),
        ),
        (_FEW,),
        ("the_end_comes_once_and_last",),
    ),
    Bug(
        "a thread goes on from a state that it is not in",
        (
            Edit(
                "core/draft.py",
                "self.add(StateChanged(from_state, to_state",
                "self.add(StateChanged(ThreadState.PAUSED, to_state",
            ),
        ),
        (_FEW,),
        ("states_follow_the_table",),
    ),
    Bug(
        "calls of a thread share a key",
        (
            Edit(
                "core/ids.py",
                'hashlib.sha256(f"{tenant}/{thread}/{call_id}"',
                'hashlib.sha256(f"{tenant}/{thread}"',
            ),
        ),
        (_FEW,),
        ("a_key_has_one_call",),
    ),
    Bug(
        "a call is taken for done after a crash",
        (
            Edit(
                "engine/steps.py",
                "        tool = head.state.spec.tool_by_name[command.name]\n        call = ToolCall(",
                "        tool = head.state.spec.tool_by_name[command.name]\n"
                "        if command.attempt > 1:\n"
                '            return self._tool_returned(head.state.spec, command, ToolResult("done"), 0.0)\n'
                "        call = ToolCall(",
            ),
        ),
        (f"{_STEP}::test_a_call_that_may_be_repeated_is_made_again_with_its_key",),
        ("results_come_from_effects",),
    ),
    Bug(
        "a recovery does not say what it left open",
        (Edit(_REPLIES, "    call_ids = tuple(call.call_id for call in unknown)\n", "    call_ids = ()\n"),),
        (f"{_STEP}::test_a_call_at_most_once_is_not_repeated_and_its_model_is_told",),
        ("only_calls_that_were_interrupted_are_unknown",),
    ),
    Bug(
        "a result is recorded twice",
        (
            Edit(
                _REPLIES,
                "    draft.add(completed)\n\n\ndef tool_failed",
                "    draft.add(completed)\n    draft.add(completed)\n\n\ndef tool_failed",
            ),
        ),
        (_FEW,),
        ("calls_complete_once",),
    ),
    Bug(
        "the model call that a crash took is not in the cost",
        (
            Edit(
                _REPLIES,
                "        draft.add(unknown_usage(draft.state, model_call))\n    poisoned",
                "        pass\n    poisoned",
            ),
        ),
        (f"{_STEP}::test_a_model_call_is_made_again_once_and_the_lost_attempt_is_in_the_cost",),
        ("attempts_at_models_are_all_accounted_for",),
    ),
    Bug(
        "tokens are not counted as the provider counts them",
        (
            Edit(
                "models/google_reply.py",
                '        read.get("totalTokenCount", input_tokens + output_tokens + reasoning),\n',
                "        input_tokens,\n",
            ),
        ),
        (f"{_STEP}::test_a_thread_is_charged_the_tokens_of_the_answers_that_it_took",),
        ("tokens_are_those_of_the_answers",),
    ),
    Bug(
        "a thread is found guilty of one crash",
        (
            Edit(
                _REPLIES,
                "    poisoned = outcome.guilty and suspicion.provable(draft.state)\n",
                "    poisoned = True\n",
            ),
        ),
        (_FEW,),
        ("no_thread_is_poisoned",),
    ),
    Bug(
        "a call runs while people are asked about it",
        (
            Edit(
                "core/state.py",
                "        return self.open and not (self.gated or self.asked",
                "        return self.open and not (self.asked",
            ),
        ),
        (_FEW,),
        ("nothing_gated_happens_without_its_approval",),
    ),
    Bug(
        "a second decision counts too",
        (
            Edit(
                _DECISIONS,
                "    if approval.state is not ApprovalState.PENDING:\n        return None if",
                "    if False:\n        return None if",
            ),
        ),
        (_FEW,),
        ("approvals_are_decided_once",),
    ),
    Bug(
        "what a person changed of the arguments is lost",
        (
            Edit(
                _DECISIONS,
                "                ask.edited_arguments_json,\n                ask.result_json,\n",
                '                "",\n                ask.result_json,\n',
            ),
        ),
        (_FEW,),
        ("acknowledged_decisions_are_in_the_log",),
    ),
    Bug(
        "inputs after the first are not taken",
        (
            Edit(
                "core/accept.py",
                "e.IterationStarted(draft.state.iteration + 1, draft.state.inputs)",
                "e.IterationStarted(draft.state.iteration + 1, "
                "draft.state.inputs[: not draft.state.iteration])",
            ),
        ),
        (_FEW,),
        ("acknowledged_inputs_are_taken_once",),
    ),
    Bug(
        "an answer is not what its question came to",
        (
            Edit(
                "core/requests.py",
                "e.ToolCallCompleted(call.call_id, CallStatus.SUCCEEDED, text)",
                'e.ToolCallCompleted(call.call_id, CallStatus.SUCCEEDED, "answered")',
            ),
        ),
        (_FEW,),
        ("acknowledged_answers_are_the_results",),
    ),
    Bug(
        "a call of an agent makes another thread after a crash",
        (
            Edit(
                "core/ids.py",
                'f"child/{tenant}/{thread}/{call_id}"',
                "f\"child/{__import__('os').getpid()}/{tenant}/{thread}/{call_id}\"",
            ),
        ),
        ("test_children.py",),
        ("a_call_of_an_agent_has_one_thread",),
    ),
    Bug(
        "a child's end is told otherwise than it was",
        (
            Edit(
                "core/children.py",
                "            ended.child_thread,\n            ended.state,\n",
                "            ended.child_thread,\n            ThreadState.FAILED,\n",
            ),
        ),
        (_FEW,),
        ("the_end_of_a_child_reaches_its_parent_once",),
    ),
    Bug(
        "a thread that ends leaves its children alone",
        (
            Edit(
                "core/mail.py",
                "    match event.payload:\n        case e.ControlRequested() as control:\n",
                "    match event.payload:\n        case _ if not isinstance(event.payload, e.ThreadEnded):\n"
                "            return ()\n        case e.ControlRequested() as control:\n",
            ),
        ),
        (_FEW,),
        ("no_child_outlives_its_parent",),
    ),
)
