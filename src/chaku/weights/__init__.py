"""Tensors on disk: read, compare, convert, write, one at a time. Needs torch, which is only imported on use."""
