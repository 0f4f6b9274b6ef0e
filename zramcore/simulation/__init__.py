"""Simulation: a trace of accesses, replayed on a virtual clock through the real policies on a simulated device.

``trace`` is the trace and its file; ``iolog`` and ``blkparse`` read those of others; ``recorder`` makes one of a
running device, ``example`` a made-up one. ``device`` simulates, ``replay`` runs, ``oracle`` knows the future.
"""
