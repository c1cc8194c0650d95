"""Starting a training run where it can survive: on this host under a supervisor, or as a SkyPilot job. No torch."""
