"""The page and its small JSON application."""
