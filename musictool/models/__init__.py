"""Models: each a file with a configuration and a module that composes core blocks. Knows no files."""
