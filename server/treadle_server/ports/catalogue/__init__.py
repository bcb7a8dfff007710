"""Ports: the rows beside the log, a noun a file. Bodies are opaque bytes; what they say is `wire`'s affair.

What is said here holds for all of them. Every mutation is durable on return, and takes an optional `request`:
then it raises Replayed, or Refused(REQUEST_ID_REUSED), before anything else if that request id was used. A
row that was changed since it was read is refused with ETAG_MISMATCH; a damaged one is never returned, but
raises Refused(RECORD_CORRUPT). Pages are full unless they are the last, whatever the filter lets through.
Times are micros since 1970.
"""
