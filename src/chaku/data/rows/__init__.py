"""Conversations to packed rows of token ids and loss mask."""
