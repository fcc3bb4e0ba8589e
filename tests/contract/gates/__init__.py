"""Keys, lanes, gates, the limits of queues and breakers: the proof of `dayjob.store.gates`."""
