"""Enqueueing and completing in the application's own transactions, with every driver and library that is known."""
