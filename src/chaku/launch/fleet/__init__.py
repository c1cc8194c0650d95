"""A fleet from one file: a gateway, and workers as child processes, Ray actors, Kubernetes objects or SkyPilot jobs."""
