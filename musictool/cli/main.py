"""How a run of `mtk` begins and ends: signals, errors in words, exit status.

Whatever happens, a user sees one line that says what and where and at most one that says what to do. typer is imported
inside `main`, so that a Ctrl-C that early is as quiet as any other.
"""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from musictool.cli.environment import Environment
from musictool.cli.exit_status import ExitStatus
from musictool.cli.streams import STANDARD_OUTPUT, input_error_from
from musictool.errors import MissingError, MusicToolError, ResourceError

_ASK_AGAIN_SECONDS = 1.0


class InternalError(MusicToolError):
    """A bug of ours."""

    exit_status = ExitStatus.INTERNAL
    default_code = "internal"


def main(argv: Sequence[str] | None = None, environment: Environment | None = None) -> int:
    """Run one command line.

    Args:
        argv: what follows the program's name; the process's own arguments by default.
        environment: streams and flags; the process's own by default, and then signals and warnings are seen to as well.

    Returns:
        An `ExitStatus`, or 128 + n when signal n ended the run.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if environment is not None:
        return _run(arguments, environment)
    environment = Environment.from_process()
    with _signals_end_the_run(), _no_ctrl_c_is_lost(), _warnings_for_developers_only(arguments):
        return _run(arguments, environment)


def _run(arguments: Sequence[str], environment: Environment) -> int:
    try:
        from musictool.cli.application import run

        status = run(arguments, environment)
        environment.stdout.flush()
        return status
    except BaseException as error:  # this is the floor: below it there is only a traceback
        return _end(error, environment)


def _end(error: BaseException, environment: Environment) -> int:
    """Report what ended a run, and give its exit status."""
    _flush_stdout(environment)
    if isinstance(error, SystemExit) and not isinstance(error.code, str):
        return error.code or ExitStatus.DONE
    if isinstance(error, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    if isinstance(error, BrokenPipeError) and error.filename == STANDARD_OUTPUT:
        return ExitStatus.DONE
    reported = _in_our_words(error)
    with suppress(OSError):  # nobody listens: the exit status still tells
        if environment.debug:
            import traceback

            traceback.print_exception(error, file=environment.stderr)
        environment.error(reported)
    return int(reported.exit_status)


def _in_our_words(error: BaseException) -> MusicToolError:
    if isinstance(error, MusicToolError):
        return error
    if _is_out_of_memory(error):
        return ResourceError(
            "out of memory", context=_first_line(error), hint="use a smaller batch, fewer --jobs or shorter inputs"
        )
    if isinstance(error, OSError):
        return input_error_from(error)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("musictool"):
        package = error.name.partition(".")[0]
        return MissingError(
            f"the package '{package}' is not installed",
            hint=f"install '{package}' beside musictool, or install musictool again with its dependencies",
            code="missing-dependency",
        )
    return InternalError(
        f"internal error: {type(error).__name__}: {_first_line(error)}".rstrip(": "),
        hint="run again with --debug and report it",
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says so: Python's, torch's for a GPU, or torch's for the CPU, which its words alone tell."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: " in str(error)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")


def _flush_stdout(environment: Environment) -> None:
    """Send on what was written before the end, or drop it where nobody takes it any more."""
    try:
        environment.stdout.flush()
    except (OSError, ValueError):
        environment.abandon_stdout()


@contextmanager
def _signals_end_the_run() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that temporary files go.

    A signal that is ignored (`nohup`) or already has a handler stays as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    caught = [number for number in caught if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, frame: FrameType | None) -> None:
        for other in caught:
            signal.signal(other, signal.SIG_IGN)  # a second one must not cut the clean-up short
        raise SystemExit(128 + number)

    for number in caught:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _no_ctrl_c_is_lost() -> Iterator[None]:
    """Let Ctrl-C interrupt again what has gone on after it: some libraries swallow it while they are imported.

    What cleans up because of it is left in peace. A Ctrl-C that is ignored or already has a handler stays as it is.
    """
    is_ours = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, _ASK_AGAIN_SECONDS, _ASK_AGAIN_SECONDS)
        raise KeyboardInterrupt

    def interrupt_again(number: int, frame: FrameType | None) -> None:
        handled = sys.exc_info()[1]
        while handled is not None and not isinstance(handled, KeyboardInterrupt):
            handled = handled.__context__
        if handled is None:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt_again)
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _warnings_for_developers_only(arguments: Sequence[str]) -> Iterator[None]:
    """Keep the warnings of libraries off a user's screen, unless `--debug` or `python -W` asks for them."""
    if "--debug" in arguments or sys.warnoptions:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
