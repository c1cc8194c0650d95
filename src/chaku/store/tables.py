"""The tables as SQLAlchemy Core sees them. `migrations` makes the real ones; a test holds both equal."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from chaku.store.column_types import UtcDateTime, Words

# JSON also carries text that a model or a stranger wrote: PostgreSQL's text type takes no NUL and no lone surrogate,
# JSON's escapes take both.
_Json = JSON(none_as_null=True)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

visitors = Table(
    "visitors",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),  # key, guest, or user of a proxy
    Column("digest", Text, nullable=False),  # sha256 of a key's token, a guest's cookie or "user:" and a name, hex
    Column("prefix", Text, nullable=False),  # a key's first characters, for people
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_used_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),  # of a guest: blocked
    Column("scopes", Words, nullable=False),  # the rights of its holder, see keys.SCOPES
    Column("expires_at", UtcDateTime),
    Column("limits", _Json, nullable=False),  # policies.Limits, without what is not limited
    Column("revision", Integer, nullable=False),  # grows with every change
    UniqueConstraint("digest", name="uq_api_keys_digest"),
    Index(
        "uq_visitors_active_name",
        "name",
        unique=True,
        sqlite_where=text("revoked_at IS NULL AND kind = 'key'"),
        postgresql_where=text("revoked_at IS NULL AND kind = 'key'"),
    ),
)

usage = Table(
    "usage",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("time", UtcDateTime, nullable=False),  # when the request came
    Column("key_id", Text, ForeignKey("visitors.id")),  # a visitor; null: came without a key
    Column("model", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),  # part of prompt_tokens
    Column("completion_tokens", Integer, nullable=False),
    Column("dollars", Float, nullable=False),  # at the price of its time
    Column("duration_s", Float, nullable=False),
    Column("time_to_first_token_s", Float),  # null: no token came
    Column("status", Integer, nullable=False),  # HTTP status
    Column("request_id", Text, nullable=False),
    Index("ix_usage_time", "time"),
    Index("ix_usage_key_id_time", "key_id", "time"),
)

rate_counters = Table(
    "rate_counters",
    metadata,
    Column("subject", Text, primary_key=True),  # a key's id
    Column("kind", Text, primary_key=True),  # a field of policies.Limits
    Column("used", Float, nullable=False),
    Column("counted_at", UtcDateTime, nullable=False),  # when `used` was so much, by the database's clock
)

sessions = Table(
    "sessions",
    metadata,
    Column("digest", Text, primary_key=True),  # sha256 of the cookie's token, hex
    Column("key_id", Text, ForeignKey("visitors.id"), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_seen_at", UtcDateTime, nullable=False),  # to the hour
    Index("ix_sessions_last_seen_at", "last_seen_at"),
)

gateways = Table(
    "gateways",
    metadata,
    Column("id", Text, primary_key=True),  # random, new with every start
    Column("renewed_at", UtcDateTime, nullable=False),  # by the database's clock
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner_id", Text, ForeignKey("visitors.id")),  # null: the local user's
    Column("title", Text, nullable=False),
    Column("title_folded", Text, nullable=False),  # for search, see conversations.fold
    Column("leaf_id", Text),  # last message of the path now shown
    Column("is_pinned", Boolean, nullable=False),
    Column("system", _Json),  # text, sent as the first message
    Column("model", Text),  # asked last
    Column("settings", _Json),  # request parameters for the next answer
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),  # last message added or finished
    Column("deleted_at", UtcDateTime),  # can still be restored
    Column("battle_id", Text),  # of battles; null: a chat
    Index("ix_conversations_owner_id_updated_at", "owner_id", "updated_at"),
    Index("ix_conversations_battle_id", "battle_id"),
)

messages = Table(
    "messages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("conversation_id", Text, ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("parent_id", Text),  # null: a conversation's first message
    Column("position", Integer, nullable=False),  # 0, 1, 2, ... among the children of one parent
    Column("role", Text, nullable=False),
    Column("content", _Json),  # text, a list of OpenAI parts, or null beside tool calls
    Column("text_folded", Text, nullable=False),  # for search
    Column("reasoning", _Json),  # text
    Column("extra", _Json),  # other OpenAI message fields as they came: tool_calls, tool_call_id, name
    Column("model", Text),
    Column("sampling", _Json),  # request parameters that made this answer
    Column("usage", _Json),  # OpenAI's usage object
    Column("timings", _Json),  # first_token_s, duration_s, tokens_per_s
    Column("finish_reason", Text),
    Column("error", _Json),
    Column("state", Text, nullable=False),
    Column("gateway_id", Text),  # who writes it while it streams
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("deleted_at", UtcDateTime),  # can still be restored; what follows it has the same time
    UniqueConstraint("conversation_id", "id"),
    # A parent is a message of the same conversation, by the database's own word.
    ForeignKeyConstraint(["conversation_id", "parent_id"], ["messages.conversation_id", "messages.id"]),
    Index("ix_messages_parent", "conversation_id", "parent_id", "position"),
    Index(
        "ix_messages_deleted_at",
        "deleted_at",
        sqlite_where=text("deleted_at IS NOT NULL"),
        postgresql_where=text("deleted_at IS NOT NULL"),
    ),
    Index(
        "ix_messages_streaming",
        "updated_at",
        sqlite_where=text("state = 'streaming'"),
        postgresql_where=text("state = 'streaming'"),
    ),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", Text, primary_key=True),
    Column("conversation_id", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("visitor", Text, nullable=False),  # a key's id, or "local"
    Column("value", Text, nullable=False),  # up or down
    Column("reasons", _Json, nullable=False),  # list of texts
    Column("consent", Boolean, nullable=False),  # whether it may be used as data
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("message_id", "visitor"),
    ForeignKeyConstraint(
        ["conversation_id", "message_id"], ["messages.conversation_id", "messages.id"], ondelete="CASCADE"
    ),
)

contestants = Table(
    "contestants",
    metadata,
    Column("id", Text, primary_key=True),  # hash of the rest, so that a battle knows what its sides were
    Column("name", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("system", _Json),  # text
    Column("sampling", _Json, nullable=False),
)

battles = Table(
    "battles",
    metadata,
    Column("id", Text, primary_key=True),
    Column("visitor", Text, nullable=False),  # a key's id, or "local"
    Column("owner_id", Text, ForeignKey("visitors.id")),  # null: the local user's
    Column("state", Text, nullable=False),  # drawn, answering, votable, voted, failed
    Column("turn", Integer, nullable=False),  # turns so far
    Column("contestant_a", Text, ForeignKey("contestants.id"), nullable=False),
    Column("contestant_b", Text, ForeignKey("contestants.id"), nullable=False),
    Column("conversation_a", Text, nullable=False),
    Column("conversation_b", Text, nullable=False),
    Column("probability", Float, nullable=False),  # with which the pair was drawn
    Column("flags", _Json, nullable=False),  # leaked, replaced, failed, shown
    Column("publish", Boolean, nullable=False),  # the texts may be shown to others
    Column("token", Text, nullable=False),  # goes with a vote
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("ix_battles_visitor_created_at", "visitor", "created_at"),
)

votes = Table(
    "votes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("battle_id", Text, ForeignKey("battles.id", ondelete="CASCADE"), nullable=False),
    Column("visitor", Text, nullable=False),
    Column("choice", Text, nullable=False),  # a, b, tie, both_bad
    Column("reasons", _Json, nullable=False),  # list of texts
    Column("publish", Boolean, nullable=False),
    Column("token", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("superseded_at", UtcDateTime),  # null: the vote that holds
    UniqueConstraint("battle_id", "token"),  # a token is used once
    Index(
        "uq_votes_active",
        "battle_id",
        unique=True,
        sqlite_where=text("superseded_at IS NULL"),
        postgresql_where=text("superseded_at IS NULL"),
    ),
    Index("ix_votes_visitor", "visitor"),
)

comparisons = Table(
    "comparisons",
    metadata,
    Column("id", Text, primary_key=True),  # hash of the record
    Column("vote_id", Text, ForeignKey("votes.id", ondelete="CASCADE")),  # null: a verdict or an import
    Column("is_example", Boolean, nullable=False),
    Column("source", Text, nullable=False),  # human, judge, import
    Column("model_a", Text, nullable=False),
    Column("model_b", Text, nullable=False),
    Column("outcome", _Json, nullable=False),  # a, b, tie, both_bad, or a grade
    Column("prompt_id", Text),
    Column("cluster", Text),
    Column("category", Text),
    Column("language", Text),
    Column("turn", Integer, nullable=False),
    Column("judge", Text),
    Column("voter", Text),
    Column("style_a", _Json),
    Column("style_b", _Json),
    Column("counted", Boolean, nullable=False),
    Column("reason", Text),
    Column("consent", Boolean),
    Column("created", Text),  # ISO 8601, UTC, as in the record
    Index("ix_comparisons_vote_id", "vote_id"),
    Index("ix_comparisons_voter", "voter"),
    Index("ix_comparisons_models", "model_a", "model_b"),
)

exclusions = Table(
    "exclusions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # voter, battle, contestant
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_by", Text, nullable=False),  # a visitor
    Column("created_at", UtcDateTime, nullable=False),
    Column("lifted_at", UtcDateTime),  # null: it holds
)

rating_snapshots = Table(
    "rating_snapshots",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("name", Text, nullable=False),  # where it went
    Column("method", Text, nullable=False),
    Column("data_sha256", Text, nullable=False),
    Column("num_games", Integer, nullable=False),
)

rated_comparisons = Table(
    "rated_comparisons",
    metadata,
    Column("snapshot_id", Text, ForeignKey("rating_snapshots.id", ondelete="CASCADE"), primary_key=True),
    Column("comparison_id", Text, primary_key=True),  # it may be deleted, and stays named here
    Index("ix_rated_comparisons_comparison_id", "comparison_id"),
)

snapshot_visitors = Table(
    "snapshot_visitors",
    metadata,
    Column("snapshot_id", Text, ForeignKey("rating_snapshots.id", ondelete="CASCADE"), primary_key=True),
    Column("visitor", Text, primary_key=True),  # whose words are in it: a key's or guest's id, or "local"
    Index("ix_snapshot_visitors_visitor", "visitor"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Text, primary_key=True),
    Column("time", UtcDateTime, nullable=False),
    Column("via", Text, nullable=False),  # page, api, shell
    Column("actor_id", Text),  # a key's id, which may be deleted some day; null: the local user, or the shell's
    Column("actor", Text, nullable=False),  # the name at that time
    Column("action", Text, nullable=False),  # see audit.ACTIONS
    Column("subject", Text, nullable=False),  # a name
    Column("details", _Json, nullable=False),  # what it was changed to, without contents
    Index("ix_audit_time", "time"),
)

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner_id", Text, ForeignKey("visitors.id")),  # null: the local user's
    Column("name", Text, nullable=False),
    Column("purpose", Text, nullable=False),  # batch, or batch_output
    Column("num_bytes", BigInteger),  # null: a batch still writes it, and nobody sees it
    Column("created_at", UtcDateTime, nullable=False),
    Index("ix_files_owner_id", "owner_id", "id"),
)

file_parts = Table(
    "file_parts",
    metadata,
    Column("file_id", Text, ForeignKey("files.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),  # in a batch's answers: the number of the request's line
    Column("content", LargeBinary, nullable=False),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner_id", Text, ForeignKey("visitors.id")),  # null: the local user's
    Column("state", Text, nullable=False),  # OpenAI's status
    Column("endpoint", Text, nullable=False),
    Column("input_file_id", Text, nullable=False),  # files that may be deleted
    Column("output_file_id", Text, nullable=False),
    Column("error_file_id", Text, nullable=False),
    Column("metadata", _Json),
    Column("errors", _Json),  # of an input that is not run: OpenAI's list
    Column("moments", _Json, nullable=False),  # state to the Unix second at which it was reached
    Column("num_requests", Integer, nullable=False),
    Column("num_completed", Integer, nullable=False),
    Column("num_failed", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("claim", Text),  # random; of the gateway that runs it
    Column("claimed_until", UtcDateTime),  # by the database's clock
    Index("ix_batches_owner_id", "owner_id", "id"),
    Index("ix_batches_state", "state"),
)
