"""What drops, flags or masks a conversation: each rule by name in `table`."""
