"""What chaku remembers: API keys, usage, conversations as trees of messages. SQLite by default, PostgreSQL by URL.

`database.open_store` gives the Store that everything else here takes: `keys`, `keyring`, `usage`, `usage_writer`,
`conversations`, `tree` and `transcripts`. All of it is synchronous; an event loop calls it through a thread.
"""
