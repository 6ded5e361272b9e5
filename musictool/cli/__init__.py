"""The shell around every command: arguments, streams, files, progress, errors and exit status.

It knows no tokens, no audio and no models; a command is an entry in `registry` and a function it imports when it runs.
"""
