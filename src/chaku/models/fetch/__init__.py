"""From a reference to a file on this machine: the sources, the cache, the conversion to GGUF."""
