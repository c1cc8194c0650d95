"""Alembic migrations, shipped in the package and run by `database.open_store`; nobody needs an alembic.ini.

A new one: copy the newest file in `versions`, count `revision` up by one, set `down_revision`, and raise
`database.HEAD`. tests/store says what still differs from `tables`.
"""
