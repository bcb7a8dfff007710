"""Drives threads: records what happens, keeps in flight what should be, takes up what a crash left."""
