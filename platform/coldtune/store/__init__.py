"""Finished work, found by what determined it: entries, leases, object storage, garbage collection."""
