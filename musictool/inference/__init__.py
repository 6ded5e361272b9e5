"""What verbs do with trained models. Prints nothing, exits never, reads no command line."""
