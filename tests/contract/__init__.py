"""What an engine is: one suite, run against every engine. A new engine is one class in `engines.py`."""
