"""The pure heart: what a thread is, what may happen to it, and what happens next."""
