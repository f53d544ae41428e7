"""Requests that are resent until they are answered: after a silence, a reconnect, or a retryable error.

Every request of the protocol may be resent, because an id in its body stays the same. Each send has a new message id,
which the answer repeats.
"""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from pos_server.core.errors import ErrorCode
from pos_server.core.protocol.client_messages import Request
from pos_server.core.protocol.server_messages import Error

from ..errors import ConnectionStopped, RequestNotDone, RequestRefused, RequestUnanswered
from .backoff import Backoff

REQUEST_TIMEOUT_S = 15.0
"""Default time that a request waits for its answer."""
REQUESTS_IN_FLIGHT_MAX = 16
RESEND_AFTER_S = 5.0
"""Time without an answer on a live connection after which a request is resent."""
RESENDS_MAX = 12
"""Upper bound of these resends on one connection, to spare a server in trouble."""

AnswerT = TypeVar("AnswerT")
RequestT = TypeVar("RequestT", bound=BaseModel)
log = logging.getLogger("pos_client")


class _Link(Protocol):
    async def send(self, message: BaseModel, /) -> bool: ...


def build_request(kind: type[RequestT], **fields: object) -> RequestT:
    """Build a request from these fields. Raises ValueError for invalid input, without repeating it in the text."""
    try:
        return kind.model_validate({"message_id": "1", **fields})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    raise ValueError(": ".join([*map(str, first["loc"][:1]), first["msg"]]))


@dataclass(eq=False)
class OpenRequest(Generic[AnswerT]):
    """A request without an answer yet.

    `message_ids` are the ids of its messages; `in_doubt` are those that the server may have acted on. Setting `wakeup`
    resends it after `retry_in_s`, unless `on_hold` delays that to the next connection. `persist` is called before the
    first send.
    """

    body: Request = field(repr=False)
    persist: Callable[[], Awaitable[object]] | None = field(default=None, repr=False)
    answer: asyncio.Future[AnswerT] = field(default_factory=lambda: asyncio.Future(), repr=False)
    message_ids: set[str] = field(default_factory=set)
    in_doubt: set[str] = field(default_factory=set)
    wakeup: asyncio.Event = field(default_factory=asyncio.Event)
    timeout: asyncio.Timeout | None = None
    slot: asyncio.Semaphore | None = None
    resends: int = 0
    retries: int = 0
    retry_in_s: float = 0.0
    on_hold: bool = False
    last_error: str | None = None

    def message(self, message_id: str) -> BaseModel:
        """Return the message to send next, under this id."""
        self.message_ids.add(message_id)
        self.in_doubt.add(message_id)
        return self.body.model_copy(update={"message_id": message_id})

    def on_new_link(self) -> None:
        """Prepare for the first send on a new connection."""
        self.resends = 0
        self.on_hold = False

    def on_silence(self) -> None:
        """Prepare for a resend after RESEND_AFTER_S without an answer."""
        self.resends += 1

    def on_answer(self, message: AnswerT) -> None:
        """End the request with its answer."""
        if not self.answer.done():
            self.answer.set_result(message)

    def on_refused(self, error: Error) -> None:
        """End the request with an error that a resend cannot fix."""
        self.fail(RequestRefused(error.code, error.message, error.field, error.retry_after_s))

    def fail(self, error: Exception) -> None:
        """End the request with an exception, unless it has ended already."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def no_answer_error(self, reason: str) -> RequestUnanswered | RequestNotDone:
        """Return the exception for an end without an answer."""
        return RequestUnanswered(reason)

    def free_slot(self) -> None:
        """Free the slot among the requests in flight."""
        if self.slot is not None:
            self.slot.release()
            self.slot = None


class Requests:
    """The open requests of one device. `online` waits for a link; `problem` returns the reason why there is none."""

    def __init__(
        self, online: Callable[[], Awaitable[_Link]], backoff: Backoff, problem: Callable[[], str | None]
    ) -> None:
        self._online = online
        self._backoff = backoff
        self._problem = problem
        self._open: set[OpenRequest[Any]] = set()
        self._slots = asyncio.Semaphore(REQUESTS_IN_FLIGHT_MAX)
        # The random prefix keeps late answers to an earlier process from matching a request of this one.
        self._message_ids = map("{}.{}".format, itertools.repeat(secrets.token_hex(8)), itertools.count(1))

    async def send_and_wait(self, request: OpenRequest[AnswerT], timeout_s: float) -> AnswerT:
        """Send a request until it is answered, for at most `timeout_s`, and return the answer.

        `request.timeout` can be rescheduled meanwhile. At most REQUESTS_IN_FLIGHT_MAX requests are in flight; more
        wait. Raises the exceptions of `request.on_refused` and `request.no_answer_error`, and ConnectionStopped.
        """
        self._open.add(request)
        sender = asyncio.create_task(self._send_until_answered(request))
        try:
            async with asyncio.timeout(timeout_s) as request.timeout:
                return await request.answer
        except TimeoutError:
            reason = request.last_error or self._problem() or f"no answer within {timeout_s:g} s"
            raise request.no_answer_error(reason) from None
        finally:
            self._open.discard(request)
            sender.cancel()

    def find(self, reply_to: str | None) -> OpenRequest[Any] | None:
        """Return the open request that sent the message with this id."""
        return next((request for request in self._open if reply_to in request.message_ids), None)

    def on_error(self, error: Error) -> None:
        """Handle an error message: end its request, or schedule a resend."""
        request = self.find(error.reply_to)
        if request is None or error.reply_to is None:
            log.warning("the server sent an error for no open request: %s", error.code)
            return
        request.resends = 0
        if error.code != ErrorCode.UNKNOWN_OUTCOME:
            request.in_doubt.discard(error.reply_to)
        # A PIN stays locked for a day, longer than any caller waits.
        if not error.retryable or error.code == ErrorCode.PIN_LOCKED:
            request.on_refused(error)
            return
        request.last_error = error.message
        if error.code == ErrorCode.DRAINING:
            request.on_hold = True
            return
        request.retry_in_s = error.retry_after_s or self._backoff.delay_s(request.retries)
        request.retries += 1
        deadline_s = request.timeout.when() if request.timeout else None
        if deadline_s is not None and asyncio.get_running_loop().time() + request.retry_in_s >= deadline_s:
            request.fail(request.no_answer_error(f"{error.message}; retry in {request.retry_in_s:.0f} s"))
        request.wakeup.set()

    def on_offline(self, stopped: ConnectionStopped | None) -> None:
        """Handle the loss of the link. `stopped` is the reason for a permanent loss."""
        for request in self._open:
            request.wakeup.set()
            if stopped is not None:
                request.fail(request.no_answer_error(str(stopped)) if request.in_doubt else stopped)

    async def _send_until_answered(self, request: OpenRequest[AnswerT]) -> None:
        previous_link: _Link | None = None
        try:
            await self._slots.acquire()
            request.slot = self._slots
            link = await self._online()
            if request.persist is not None:
                await request.persist()
            while True:
                if link is not previous_link:
                    request.on_new_link()
                    previous_link = link
                await self._send_on(link, request)
                await self._backoff.sleep(request.retry_in_s)
                link = await self._online()
        except Exception as error:  # ConnectionStopped, or a bug: either way the caller must not wait longer
            request.fail(request.no_answer_error(str(error)) if request.in_doubt else error)
        finally:
            request.free_slot()

    async def _send_on(self, link: _Link, request: OpenRequest[AnswerT]) -> None:
        """Send and, after silences, resend a request on one link, until its `wakeup` or the loss of the link."""
        request.wakeup.clear()
        request.retry_in_s = 0.0
        while True:
            if not await link.send(request.message(next(self._message_ids))):
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(RESEND_AFTER_S if request.resends < RESENDS_MAX else None):
                    await request.wakeup.wait()
            if request.on_hold:
                await request.wakeup.wait()
            if request.wakeup.is_set():
                return
            request.on_silence()
