"""What happens when a replica fails: who is tried next, how often, and how an answer that has begun is continued."""
