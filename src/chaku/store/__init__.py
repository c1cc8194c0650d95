"""What chaku remembers: keys, usage, conversations as trees of messages."""
