"""What models exist, how they get here, and what is in their files."""
