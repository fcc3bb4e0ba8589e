"""How fast dayjob is, as ratios measured in one run.

    python -m benchmarks run                 everything, a table and build/bench-sqlite.json (`make bench`)
    python -m benchmarks run drain latency   some of it
    python -m benchmarks run --engine postgres
    python -m benchmarks list                what there is, with the floors each must reach
    python -m benchmarks report              benchmarks/RESULTS.md from benchmarks/results
    python -m benchmarks.horizon --help      PostgreSQL for minutes on end, while a snapshot is held open

A scenario measures the engine alone (`engines/`), a peer where one fits (`peers/`) and dayjob, one after the other in
every round, so that a slow minute of the machine hits all of them; a ratio is formed within a round, and the median
over the rounds counts. What is measured runs in processes of its own (`child`), as it would in production.

    model      figures, floors, scenarios          engines/    the bare engine, per store: what nothing beats
    runner     rounds, medians                     peers/      other job queues at their best setting
    child      the processes that are measured     scenarios/  one file per question
    report     table, JSON, RESULTS.md             jobs        the tasks of the measured application
"""
