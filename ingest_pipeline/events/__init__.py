"""Notices of S3: which objects of a bucket may have changed, from a queue of Amazon SQS.

A notice is a hint and nothing more. It names an object, and the planner compares that object with head, so lost,
repeated, late and reordered notices change nothing but how soon a change is found. The listing of the source
decides. `queue_address` reads the setting, `notices` reads the messages, and `queue` alone imports boto3 and calls SQS.
Imports `sources`, `failpoints` and `errors` only. Begin with `notices`.
"""
