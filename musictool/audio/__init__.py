"""Sound: files and what is measured on them."""
