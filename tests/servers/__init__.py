"""Servers for tests and benchmarks: started when first asked for, one of each per process, ended with it."""
