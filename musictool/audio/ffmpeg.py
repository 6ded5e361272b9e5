"""The `ffmpeg` program as a decoder of what libsndfile does not know: m4a, aac, wma, webm and many more.

It writes AU, which says rate and channels and goes on for as long as there is sound. Knows nothing of what is done with
that.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile

INSTALL_HINT = "m4a, aac, wma, webm and others need ffmpeg: install it"

_OPTIONS = "-nostdin -v error -protocol_whitelist {protocol} -i {source} -map 0:a:0 -f au -c:a pcm_f32be pipe:1"
_ORIGIN = re.compile(r"^(\[[^]]*\] |pipe:0: |file:/dev/stdin: )+")
_COMPLAINT_BYTES = 4096
_GRACE_SECONDS = 5.0


def find_ffmpeg() -> str | None:
    """Where the program is; None if it is not installed."""
    return shutil.which("ffmpeg")


class Ffmpeg:
    """A run of ffmpeg over the first sound in its input.

    Args:
        program: where it is.
        descriptor: what it reads.
        can_seek: whether that is a regular file.

    Attributes:
        output: the descriptor that the sound comes out of.
    """

    def __init__(self, program: str, descriptor: int, *, can_seek: bool) -> None:
        protocol, source = ("file", "file:/dev/stdin") if can_seek else ("pipe", "pipe:0")
        options = _OPTIONS.format(protocol=protocol, source=source).split()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (open until `close`)
        try:
            self._process = subprocess.Popen(
                [program, *options], bufsize=0, stdin=descriptor, stdout=subprocess.PIPE, stderr=self._errors
            )
        except OSError:
            self._errors.close()
            raise
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self.output = self._output.fileno()

    def complaint(self) -> str:
        """The first thing that it did not like, when its sound has ended; empty if there was none."""
        try:
            status = self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return "ffmpeg does not come to an end"
        self._errors.seek(0)
        lines = self._errors.read(_COMPLAINT_BYTES).decode(errors="replace").splitlines()
        said = _ORIGIN.sub("", lines[0]) if lines else ""
        said = said[:1].lower() + said[1:]
        return said or (f"ffmpeg ended with status {status}" if status else "")

    def kill(self) -> None:
        """End it, and so its output."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Let go of its output, when it has ended."""
        self._output.close()
        self._errors.close()
