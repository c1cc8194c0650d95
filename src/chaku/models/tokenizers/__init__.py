"""Tokenizers without torch: read from a model's files, and written to them."""
