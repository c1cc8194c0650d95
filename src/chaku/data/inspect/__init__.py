"""Looking at a built set: audit, report, samples, and what became of one conversation."""
