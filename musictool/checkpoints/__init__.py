"""Weights in, weights out: files of tensors in several formats, and the store that models are kept in.

Knows no model: what a checkpoint should hold is told by names and shapes, and no file's code is ever run.
"""
