"""Wire shapes that cross a process border."""
