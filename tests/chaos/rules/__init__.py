"""The rules, by what they look at. Each takes the evidence of a run and returns a finding."""
