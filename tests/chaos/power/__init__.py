"""Power cuts of SQLite: what was not synced is dropped, reordered or torn, and every acknowledged job is still there.

    workload ──strace──▶ recording ──▶ disk ──cut at a moment──▶ folder ──reboot──▶ judge
    (a producer and a     every write,   what each file may look      the engine opens it under a new boot id,
     worker process,      sync, mark,    like when the power goes     a new worker drains it
     the real engine)     in true order

One recording is cut many times. The ledger of the workload is part of the recording, so there is one order of what was
written, what was synced and what was acknowledged.
"""
