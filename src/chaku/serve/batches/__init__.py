"""Batches of the API: files of requests that the gateway answers while it has time."""
