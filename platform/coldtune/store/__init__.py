"""Finished work, found by the key of its inputs: entries, leases, object storage, garbage collection."""
