"""What a conversation in a terminal is made of. Only `chaku chat` uses it."""
