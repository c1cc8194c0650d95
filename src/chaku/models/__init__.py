"""Models by name: the built-in table, fetching, GGUF metadata, the memory plan. No torch, no engine."""
