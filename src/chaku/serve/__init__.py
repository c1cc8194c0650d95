"""The gateway: one port in front of the engines."""
