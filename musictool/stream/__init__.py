"""The token stream: what stages of a pipe say to each other. FORMAT.md is its specification."""
