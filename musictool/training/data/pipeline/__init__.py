"""Stages that turn recordings into what models of sound learn from, and pipelines of them."""
