"""vLLM and SGLang as engines: their own servers as child processes, in Python environments of their own."""
