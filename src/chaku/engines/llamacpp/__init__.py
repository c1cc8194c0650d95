"""llama.cpp as an engine: its server in a child process, reached over loopback."""
