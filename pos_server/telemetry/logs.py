"""Logs are events with fields, one line each on stderr: coloured text for a person, JSON for everything else.

What may be logged: ids and counts. Never codes, keys, activation codes or what a client sent. What is about one payment
says its `payment_id`, what happens during a REST request its `request_id`: the request's task carries both along.
"""

import logging
import sys
from uuid import UUID

import structlog


def configure_logging(level: str = "info") -> None:
    """Set up structlog for the process, and let the standard library's loggers (uvicorn, asyncio) speak through it."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    for_people = sys.stderr.isatty()
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if for_people
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").addFilter(_is_our_fault)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def about_request(request_id: str) -> None:
    """From here on, whatever this task logs is about this request."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)


def about_payment(payment_id: UUID | None) -> None:
    """And about this payment; None: it is not known yet which."""
    if payment_id is not None:
        structlog.contextvars.bind_contextvars(payment_id=str(payment_id))


def _is_our_fault(record: logging.LogRecord) -> bool:
    """Of what uvicorn reports, a fault of the application: not each connection, nor what peers do wrong."""
    return record.levelno >= logging.CRITICAL or str(record.msg).startswith("Exception in ASGI application")
