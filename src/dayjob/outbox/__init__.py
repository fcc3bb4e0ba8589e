"""The transactional outbox: jobs written in the application's transaction, for a queue that is in another store.

application ─INSERT─▶ dayjob_outbox ─▶ (the application commits) ─▶ relay ─enqueue─▶ store ─▶ workers
"""
