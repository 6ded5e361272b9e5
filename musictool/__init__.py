"""Music models as small tools that pipe: transcription, style transfer and neural codecs on one shared core.

This package imports nothing on its own, so that `import musictool.stream` costs what it needs and no more.
"""

__version__ = "0.1.0"
