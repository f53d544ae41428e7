"""Logs: events with fields, one line each on stderr. A terminal gets coloured text, everything else gets JSON.

Log ids and counts only, never payment codes, keys, activation codes or message contents. An event about a payment has
its `payment_id`, an event during a REST request has its `request_id`. Both are context variables of the request's task.
"""

import logging
import sys
from uuid import UUID

import structlog

from ..ledger.failures import DATABASE_ERRORS


def configure_logging(level: str = "info") -> None:
    """Configure structlog for the process, also for the standard library's loggers (uvicorn, asyncio)."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    at_a_terminal = sys.stderr.isatty()
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if at_a_terminal
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
    logging.getLogger("uvicorn.error").addFilter(_is_application_fault)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for name in ("asyncpg.pool", "asyncio"):
        logging.getLogger(name).addFilter(_without_traceback)


def about_request(request_id: str) -> None:
    """Add the request's id to all further events of this task."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)


def about_payment(payment_id: UUID | None) -> None:
    """Add the payment's id to all further events of this task. None, for an unknown payment, changes nothing."""
    if payment_id is not None:
        structlog.contextvars.bind_contextvars(payment_id=str(payment_id))


def _without_traceback(record: logging.LogRecord) -> bool:
    """Log an error of the database in one line. asyncpg's pool logs each failed attempt to reconnect as a traceback."""
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if isinstance(error, DATABASE_ERRORS):
        record.msg, record.args = f"{record.getMessage()} ({type(error).__name__})", ()
        record.exc_info = record.exc_text = None
    return True


def _is_application_fault(record: logging.LogRecord) -> bool:
    """Return whether uvicorn reports a fault of the application, not a connection or an error of a peer."""
    return record.levelno >= logging.CRITICAL or str(record.msg).startswith("Exception in ASGI application")
